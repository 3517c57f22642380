"""The mathematics: adaptation to tasks, and the meta-gradient through it."""
