"""`metaopt up`: Prefect's and MLflow's own servers on the data of embedded runs, and how other commands find them."""

import contextlib
import errno
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import httpx
from filelock import Timeout
from rich.console import Console

from flows import login
from flows.environment import API_URL, Api
from flows.server_process import LOGIN, Kind, ServerProcess, is_loopback, stop_leftover
from metaopt_core.errors import UserError
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.served import Served, lock, note, served
from metaopt_core.pipeline.store import write_atomically
from metaopt_core.spec import addresses

_SECONDS_TO_START = 180.0
_SECONDS_FOR_THE_LOCK = 5.0  # checking whether `up` runs takes it for a moment
_EVERYWHERE = {"0.0.0.0", "::"}  # noqa: S104
_NAMES: dict[Kind, str] = {"prefect": "Prefect", "mlflow": "MLflow"}


def prefect_api(home: Home) -> Api | None:
    """A running Prefect server: the one that PREFECT_API_URL names, else that of `metaopt up`, else none.

    Raises UserError if PREFECT_API_URL contains credentials or its server does not answer.
    """
    if named := os.environ.get(API_URL):
        if wrong := addresses.problem(named, addresses.OF_PREFECT):
            raise UserError(f"environment variable {API_URL}: {wrong}")
        if not answers(named, seconds=5):
            raise UserError(f"{API_URL}={named}: no Prefect server answers there; start it, or unset the variable")
        return Api(named)
    found = served(home)
    if found is None or not answers(found.api):
        return None
    return Api(found.api, login.read(home) if found.password else None)


def answers(api: str, seconds: float = 1.0) -> bool:
    """Whether a Prefect API answers."""
    try:
        return httpx.get(f"{api.rstrip('/')}/health", timeout=seconds).is_success
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def up(home: Home, host: str, prefect_port: int, mlflow_port: int, password: bool) -> None:
    """Run both servers until Ctrl-C, SIGTERM, or the end of one. Raises UserError.

    password: ask for the home's login. The servers always ask for it if other machines can reach them or if the environment has
    one.
    """
    if prefect_port == mlflow_port:
        raise UserError(f"--prefect-port and --mlflow-port are both {prefect_port}: expected two different ports")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_stopping_on_signals())
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        try:
            stack.enter_context(lock(home).acquire(timeout=_SECONDS_FOR_THE_LOCK))
        except Timeout:
            there = served(home)
            addresses = f": Prefect {there.prefect}, MLflow {there.mlflow}" if there else ""
            raise UserError(f"servers for {home.root} are up already{addresses}") from None
        note(home).unlink(missing_ok=True)  # left by one that was killed
        for kind in _NAMES:
            stop_leftover(home, kind)
        listeners: dict[Kind, socket.socket] = {
            "prefect": stack.enter_context(_listen(host, prefect_port, "--prefect-port")),
            "mlflow": stack.enter_context(_listen(host, mlflow_port, "--mlflow-port")),
        }
        exposed = not is_loopback(listeners["prefect"])
        shown = _shown(host)
        servers = Served(
            prefect=f"http://{shown}:{prefect_port}",
            mlflow=f"http://{shown}:{mlflow_port}",
            password=password or exposed or bool(os.environ.get(LOGIN)),
        )
        settings = _settings(home, servers, host, prefect_port)
        _run(home, host, listeners, servers, settings, exposed)


def _run(
    home: Home, host: str, listeners: dict[Kind, socket.socket], servers: Served, settings: dict[str, str], exposed: bool
) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with contextlib.ExitStack() as stack:
        processes: dict[Kind, ServerProcess] = {}
        for kind, listener in listeners.items():
            processes[kind] = ServerProcess(kind, listener, host, _log(home, kind), **settings)
            stack.callback(processes[kind].stop)
        for kind, process in processes.items():
            console.print(f"waiting for {_NAMES[kind]} (log: {_log(home, kind)})")
            try:
                process.wait_ready(_SECONDS_TO_START)
            except UserError as error:
                raise UserError(f"{_NAMES[kind]}'s server {error}") from None
            listeners[kind].close()  # the server has inherited it
        stack.callback(note(home).unlink, missing_ok=True)
        write_atomically(note(home), json.dumps(asdict(servers)))
        _announce(console, home, servers, host, exposed)
        while True:
            for kind, process in processes.items():
                if process.has_ended():
                    raise UserError(f"{_NAMES[kind]}'s server {process.ending()}")
            time.sleep(0.5)


def _announce(console: Console, home: Home, servers: Served, host: str, exposed: bool) -> None:
    print(f"Prefect  {servers.prefect}\nMLflow   {servers.mlflow}", flush=True)
    if exposed:
        here = f" (there under the name {socket.gethostname()} or this machine's address)" if host in _EVERYWHERE else ""
        console.print(
            f"Other machines can reach both{here}, so both ask for a password. Connections are not encrypted: in a network "
            "that you don't trust, leave out --host and use an SSH tunnel."
        )
    if servers.password:
        console.print(
            f"The login is USER:PASSWORD in {login.file(home)}. Prefect's page takes the whole line, MLflow's the two parts; "
            "metaopt's commands for this folder read it themselves."
        )
    else:
        console.print("Every user of this machine can open both; --password asks for one.")
    console.print("Ctrl-C stops both.")


def _settings(home: Home, servers: Served, host: str, prefect_port: int) -> dict[str, str]:
    """Environment variables of the servers."""
    settings = {
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": str(prefect_port),
        "PREFECT_UI_API_URL": servers.api,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": servers.prefect,
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    return settings | ({LOGIN: login.make(home, os.environ.get(LOGIN) or None)} if servers.password else {})


def _listen(host: str, port: int, option: str) -> socket.socket:
    if not host:  # which the system takes for all addresses
        raise UserError("--host: expected a name or an address of this machine, as in 127.0.0.1; for all of them, 0.0.0.0")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        if not isinstance(error, OSError) or error.errno is None or error.errno < 0 or error.errno == errno.EADDRNOTAVAIL:
            raise UserError(f"--host {host}: not a name or an address of this machine") from None  # below 0: the name is unknown
        raise UserError(
            f"{option} {port}: cannot listen on {host}:{port} ({error.strerror}); name a free port with {option}"
        ) from None


@contextlib.contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """Let SIGTERM stop the servers like Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _shown(host: str) -> str:
    """The host in an address that this machine can open."""
    if host in _EVERYWHERE:
        return "127.0.0.1" if host != "::" else "[::1]"
    return f"[{host}]" if ":" in host else host


def _log(home: Home, kind: Kind) -> Path:
    return home.root / "logs" / f"{kind}.log"
