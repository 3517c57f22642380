"""Environment variables of a process: read only here, and passed to the library as values.

Those that Prefect, MLflow and PyTorch read are set here before any of them is imported, so that all state is in one home.
"""

import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows import console
from metaopt_core.errors import UserError
from metaopt_core.pipeline import home as homes
from metaopt_core.pipeline.home import Home
from metaopt_core.spec import user_source

if TYPE_CHECKING:
    from metaopt_core.pipeline.execution import Execution
    from metaopt_core.spec.pipeline import PipelineSpec

API_URL = "PREFECT_API_URL"
MODULES = "METAOPT_MODULES"
TRACES = "METAOPT_TRACES"
_LOGIN = "PREFECT_API_AUTH_STRING"
_KEY = "PREFECT_API_KEY"
OF_CLIENTS = frozenset({API_URL, _LOGIN, _KEY})
"""Variables that tell Prefect's clients where to connect, and that its servers must not see."""


def prepare(home: Home, *, quiet: bool) -> None:
    """Point this process, and every process that it starts, at one home.

    quiet: Prefect writes nothing to the console (its server still gets every log line); `flows.console` shows our own lines.
    """
    try:
        home.make()
        writable = os.access(home.root, os.W_OK)
        before = home.close() if writable else None
    except OSError:
        writable = False
    if not writable:
        raise UserError(
            f"{home.root}: not a writable folder, and metaopt keeps all its state there; {homes.VARIABLE} names another"
        )
    if before is not None:
        console.complain(f"{home.root}: only you can read it now, before {before:o}; `chmod {before:o}` shares it again, for good")
    os.environ[homes.VARIABLE] = str(home.root)
    os.environ["PREFECT_HOME"] = str(home.prefect)
    os.environ["PYTHONSAFEPATH"] = "1"  # no process started from here imports from its current folder
    os.environ.pop("PREFECT_PROFILE", None)  # it names a profile in the user's own Prefect home, which is not used here
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home.compiled))  # keeps compiled code for the next run
    if quiet:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    for variable, value in {
        "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",  # below that are only connections that it retries
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }.items():
        os.environ.setdefault(variable, value)


def python(module: str) -> list[str]:
    """The command that runs one of our modules: the installed one, whatever is in the current folder."""
    return [sys.executable, "-P", "-m", module]


def home_of(pipelines_file: Path) -> Home:
    """Where the pipelines of a file keep all their state. Raises UserError."""
    return Home.beside(pipelines_file, os.environ.get(homes.VARIABLE))


def current_home() -> Home:
    """The home of this process, which the command line passes on in the environment."""
    return home_of(Path.cwd() / "pipelines.yaml")


def import_from(folder: Path) -> None:
    """Let this process, and those that it starts, also import the modules that specs name from a folder."""
    user_source.look_in(folder)
    os.environ[MODULES] = str(folder)


def begin() -> None:
    """Set up a process that was started by the command line or by `metaopt serve`, and end it when its starter ends."""
    if folder := os.environ.get(MODULES):
        import_from(Path(folder))
    if starter := multiprocessing.parent_process():
        threading.Thread(target=_end_with, args=(starter,), daemon=True).start()


def _end_with(starter: multiprocessing.process.BaseProcess) -> None:
    """End this process in an orderly way when its starter has ended, even if that was killed."""
    starter.join()
    os.kill(os.getpid(), signal.SIGTERM)


def execution(spec: "PipelineSpec", home: Home | None = None) -> "Execution":
    """An execution that begins in this process, with what the environment says about it. Raises UserError."""
    from metaopt_core.pipeline.execution import Execution  # imported here, because servers don't need it

    traces = os.environ.get(TRACES)
    return Execution.of(home or current_home(), spec.located(os.environ), Path(traces) if traces else None)


def program() -> str:
    """How to call metaopt: by name, or by its path if it is not on the PATH."""
    typed = sys.argv[0]
    return typed if Path(typed).name == "metaopt" and shutil.which("metaopt") is None else "metaopt"


def command(*words: str) -> str:
    """A command for the user to type: as metaopt itself was called, with the same pipelines file and values."""
    repeated: list[str] = []
    for option, value in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        if option in {"-f", "--file"} or (option == "--set" and "run" in words):
            repeated += [option, value]
    return shlex.join([program(), *words, *repeated])


@dataclass(frozen=True)
class Api:
    """The address of a Prefect API, which ends in /api, and the USER:PASSWORD that it asks for, if it is a server of ours."""

    address: str
    login: str | None = None

    def use(self) -> None:
        """Let Prefect, which reads this as it is imported, speak to this API."""
        os.environ[API_URL] = self.address
        if self.login is not None:
            os.environ[_LOGIN] = self.login
            os.environ.pop(_KEY, None)  # it would override the login
