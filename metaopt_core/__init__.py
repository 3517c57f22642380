"""metaopt's library: meta-learning without orchestration. Imports neither Prefect nor `flows` nor `tasks`."""
