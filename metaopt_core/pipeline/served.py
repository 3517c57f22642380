"""What `metaopt up` serves for a home: a note in the home, valid for as long as that process holds its lock.

A lock ends with its process, however that ends, so the note of a killed one is recognized, also when its process id or its port
are another's by then. Links are made from what this note says; no port is assumed.
"""

import json
from dataclasses import dataclass

from filelock import FileLock, Timeout

from metaopt_core.pipeline.home import Home


@dataclass(frozen=True)
class Served:
    """The addresses of the two servers: Prefect's (its API is below /api) and MLflow's."""

    prefect: str
    mlflow: str

    @property
    def api(self) -> str:
        return f"{self.prefect}/api"


def lock(home: Home) -> FileLock:
    """Held by `metaopt up` while it runs."""
    home.locks.mkdir(parents=True, exist_ok=True)
    return FileLock(home.locks / "up.lock")


def served(home: Home) -> Served | None:
    """What `metaopt up` serves for this home now, if anything."""
    try:
        noted = json.loads((home.root / "servers.json").read_text())
        found = Served(noted["prefect"], noted["mlflow"])
        with lock(home).acquire(timeout=0):
            return None  # nobody holds it: the note was left by a process that was killed
    except Timeout:
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return None


def served_address(home: Home) -> str | None:
    """The address of the MLflow server that shows this home's runs, if `metaopt up` runs."""
    found = served(home)
    return found.mlflow if found else None
