"""`metaopt up`: Prefect's and MLflow's own servers over the data of embedded runs, and how other commands find them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import httpx
from rich.console import Console

from flows.environment import API_URL
from metaopt_core.errors import UserError
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.served import lock
from metaopt_core.pipeline.store import write_atomically

_SECONDS_TO_START = 180.0
_SECONDS_TO_STOP = 10.0
_TAIL = 15  # lines of a dead server's log


@dataclass(frozen=True)
class Servers:
    """The addresses of running servers: Prefect's (its API is below /api) and MLflow's, and the process that runs them."""

    prefect: str
    mlflow: str
    pid: int

    @property
    def api(self) -> str:
        return f"{self.prefect}/api"


def running(home: Home) -> Servers | None:
    """The servers that `metaopt up` runs for this home, if they answer."""
    try:
        servers = Servers(**json.loads(_note(home).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return servers if _lives(servers.pid) and _answers(f"{servers.api}/health") else None


def _lives(pid: int) -> bool:
    """Whether there is such a process: a note may be left from one that was killed, and its port be another home's by now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def api_address(home: Home) -> str | None:
    """A running Prefect server: the one that PREFECT_API_URL names, else that of `metaopt up`, else none.

    Raises UserError where the former does not answer.
    """
    if named := os.environ.get(API_URL):
        if not _answers(f"{named.rstrip('/')}/health", seconds=5):
            raise UserError(f"{API_URL}={named}: no Prefect server answers there; start it, or unset the variable")
        return named
    servers = running(home)
    return servers.api if servers else None


def up(home: Home, host: str, prefect_port: int, mlflow_port: int) -> None:
    """Run both servers until Ctrl-C, SIGTERM, or the end of one. Raises UserError."""
    console = Console(stderr=True, highlight=False)
    if already := running(home):
        raise UserError(f"servers for {home.root} are up already: Prefect {already.prefect}, MLflow {already.mlflow}")
    for port, option in ((prefect_port, "--prefect-port"), (mlflow_port, "--mlflow-port")):
        _refuse_taken(host, port, option)
    if prefect_port == mlflow_port:
        raise UserError(f"--prefect-port and --mlflow-port are both {prefect_port}: expected two different ports")
    servers = Servers(f"http://{_shown(host)}:{prefect_port}", f"http://{_shown(host)}:{mlflow_port}", os.getpid())
    home.mlflow.mkdir(parents=True, exist_ok=True)
    commands = {
        "Prefect": [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(prefect_port)],
        "MLflow": [
            *(sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(mlflow_port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{home.mlflow / 'mlflow.db'}"),
            *("--artifacts-destination", str(home.mlflow / "artifacts")),
        ],
    }
    health = {"Prefect": f"{servers.api}/health", "MLflow": f"{servers.mlflow}/health"}
    with _stopping_on_signals(), contextlib.ExitStack() as stack:
        stack.enter_context(lock(home).acquire(timeout=5))
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        processes = {name: stack.enter_context(_process(name, command, _log(home, name))) for name, command in commands.items()}
        for name in commands:
            console.print(f"waiting for {name} (log: {_log(home, name)})")
            _await(name, processes[name], health[name], home)
        stack.callback(_note(home).unlink, missing_ok=True)
        write_atomically(_note(home), json.dumps(asdict(servers)))
        print(f"Prefect  {servers.prefect}\nMLflow   {servers.mlflow}", flush=True)
        console.print("Ctrl-C stops both.")
        while True:
            for name, process in processes.items():
                if process.poll() is not None:
                    raise _died(name, process, home)
            time.sleep(0.5)


def _await(name: str, process: subprocess.Popen[bytes], address: str, home: Home) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while not _answers(address):
        if process.poll() is not None:
            raise _died(name, process, home)
        if time.monotonic() > deadline:
            raise UserError(f"{name} did not answer at {address} within {_SECONDS_TO_START:.0f} s; see {_log(home, name)}")
        time.sleep(0.3)


def _died(name: str, process: subprocess.Popen[bytes], home: Home) -> UserError:
    log = _log(home, name)
    tail = log.read_text(errors="replace").splitlines()[-_TAIL:]
    return UserError(
        "\n".join([f"{name}'s server ended with status {process.returncode}; the end of {log}:", *(f"  {line}" for line in tail)])
    )


@contextlib.contextmanager
def _process(name: str, command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, because each has workers; leaving the block stops them all."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {variable: value for variable, value in os.environ.items() if variable != API_URL}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environment, cwd=log.parent
        )
    try:
        yield process
    finally:
        _signal_group(process, signal.SIGTERM)
        try:
            process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            print(f"{name} did not stop within {_SECONDS_TO_STOP:.0f} s and is killed", file=sys.stderr)
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


@contextlib.contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """Let SIGTERM stop the servers as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse_taken(host: str, port: int, option: str) -> None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise UserError(
            f"{option} {port}: cannot listen on {host}:{port} ({error.strerror}); name a free port with {option}"
        ) from None


def _answers(address: str, seconds: float = 1.0) -> bool:
    try:
        return httpx.get(address, timeout=seconds).is_success
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _shown(host: str) -> str:
    return "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104


def _note(home: Home) -> Path:
    return home.root / "servers.json"


def _log(home: Home, name: str) -> Path:
    return home.root / "logs" / f"{name.lower()}.log"
