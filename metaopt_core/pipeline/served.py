"""What `metaopt up` serves for a home: a note in the home, valid for as long as that process holds its lock.

A lock ends with its process, however that ends, so the note of a killed process is recognized even if its process id or its port
has been reused. Links are made from this note; no port is assumed.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from metaopt_core.pipeline.home import Home


@dataclass(frozen=True)
class Served:
    """The addresses of the two servers, Prefect's (its API is below /api) and MLflow's, and whether they ask for a password."""

    prefect: str
    mlflow: str
    password: bool

    @property
    def api(self) -> str:
        return f"{self.prefect}/api"


def lock(home: Home) -> FileLock:
    """Held by `metaopt up` while it runs."""
    home.locks.mkdir(parents=True, exist_ok=True)
    return FileLock(home.locks / "up.lock")


def note(home: Home) -> Path:
    """Where `metaopt up` writes what it serves, as JSON, once both servers answer."""
    return home.root / "servers.json"


def served(home: Home) -> Served | None:
    """What `metaopt up` serves for this home now, if anything."""
    try:
        found = Served(**json.loads(note(home).read_text()))
        with lock(home).acquire(timeout=0):
            return None  # the lock is free: the note was left by a process that was killed
    except Timeout:
        return found
    except (OSError, ValueError, TypeError):
        return None


def served_address(home: Home) -> str | None:
    """The address of the MLflow server that shows this home's runs, if `metaopt up` runs."""
    found = served(home)
    return found.mlflow if found else None
