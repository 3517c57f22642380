"""The two loops: adaptation to tasks, the meta-gradient through it, and the training that follows it."""
