"""What Prefect, MLflow and PyTorch read from the environment, set before any is imported, so that all state lies in one home."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from metaopt_core.errors import UserError
from metaopt_core.pipeline import home as homes
from metaopt_core.pipeline.home import Home

API_URL = "PREFECT_API_URL"


def prepare(home: Home, *, quiet: bool) -> None:
    """Point this process, and every process that it starts, at one home.

    quiet: Prefect writes nothing to the console (its server still gets every log line); `flows.console` shows what a user wants.
    """
    try:
        home.make()
        writable = os.access(home.root, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UserError(
            f"{home.root}: no folder that can be written to, and all state is to lie there; {homes.VARIABLE} names another"
        )
    os.environ[homes.VARIABLE] = str(home.root)
    os.environ["PREFECT_HOME"] = str(home.prefect)
    os.environ.pop("PREFECT_PROFILE", None)  # names a profile of the user's own Prefect home, which is not the one in use here
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home.compiled))  # what was compiled once is there for the next run
    if quiet:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    for variable, value in {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }.items():
        os.environ.setdefault(variable, value)


def program() -> str:
    """How the user called metaopt: by its path, where it isn't found by its name."""
    typed = sys.argv[0]
    return typed if Path(typed).name == "metaopt" and shutil.which("metaopt") is None else "metaopt"


def command(*words: str) -> str:
    """A command for the user to type: as metaopt itself was called, with the same pipelines file and values."""
    repeated: list[str] = []
    for option, value in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        if option in {"-f", "--file"} or (option == "--set" and "run" in words):
            repeated += [option, value]
    return shlex.join([program(), *words, *repeated])


def use(address: str) -> None:
    """Let Prefect, which reads this as it is imported, speak to the API at an address."""
    os.environ[API_URL] = address
