"""The process of a server that we start, Prefect's or MLflow's, and the handle to it.

It listens on a socket that it inherits, so that no other process can take the port in between, and stops when its standard input
closes, so that nothing is left behind when the process that started it is killed. Prefect's and MLflow's own commands do neither.
Their applications run behind `flows.guard`, each in its own process.

`python -P -m flows.server_process KIND SOCKET HOST` is the process; `ServerProcess` is the handle.
"""

import contextlib
import functools
import gc
import importlib.metadata
import ipaddress
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal

from filelock import FileLock, Timeout

from flows import environment
from metaopt_core.errors import UserError
from metaopt_core.pipeline.home import Home

Kind = Literal["prefect", "mlflow", "embedded"]
"""Prefect's server with its page; MLflow's; Prefect's for one run, without a page."""

LOGIN = "PREFECT_SERVER_API_AUTH_STRING"
"""The variable that tells a server which USER:PASSWORD to ask for. It is Prefect's own; our MLflow server reads it, too."""

TEMPLATE = Path(sys.prefix) / "share" / "metaopt" / f"prefect-{importlib.metadata.version('prefect')}.db"
"""An empty, migrated Prefect database, made during installation; every new home starts from a copy."""

_FIRST_VISIT = {"mlflow.workflowType_v1": "machine_learning", "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True}
"""Settings of MLflow's page for a browser that has none yet: show training runs instead of traces and tokens,
and don't open the assistant, which is closed here. MLflow 3.17 reads no tag of an experiment for this."""

_SECONDS_TO_STOP = 5.0
_SECONDS_TO_START = 180.0  # migrating a database on a busy machine included
_TAIL = 15  # lines of a dead server's log


class ServerProcess:
    """Starts on construction, in the background. Stops when told to, or when this process is gone."""

    def __init__(self, kind: Kind, listener: socket.socket, host: str, log: Path, **settings: str):
        """host: the name to listen on. settings: environment variables of the server."""
        self._log = log
        self._ready = False
        log.parent.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if name not in environment.OF_CLIENTS}
        with log.open("wb" if kind != "embedded" else "ab") as output:  # one log for all runs, or a new one for this server
            self._process = subprocess.Popen(
                [*environment.python("flows.server_process"), kind, str(listener.fileno()), host],
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=inherited | settings,
                cwd=log.parent,
                start_new_session=True,  # Ctrl-C is for the process that started it, which may still need the server
            )

    def wait_ready(self, seconds: float) -> None:
        """Return when the server answers. Raises UserError."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            self._process.kill()
            raise UserError(f"did not answer within {seconds:.0f} s; see {self._log}")
        if not self._process.stdout.readline():
            raise UserError(self.ending())
        self._ready = True

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def ending(self) -> str:
        """How it ended, with the end of its log. Call it once it has ended."""
        status = self._process.wait()
        tail = self._log.read_text(errors="replace").splitlines()[-_TAIL:]
        return "\n".join([f"ended with status {status}; the end of {self._log}:", *(f"  {line}" for line in tail)])

    def stop(self) -> None:
        """Stop it cleanly. A server that is still starting ends by itself as soon as that is safe."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if not self._ready:
            return
        try:
            self._process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def stop_leftover(home: Home, kind: Kind, seconds: float = 5.0) -> None:
    """Wait for a server of this home whose parent was killed to end by itself, and kill it if it hangs.

    A server holds a lock while it lives, with its process id beside it, so that no other process is ever killed.
    """
    lock = _lock(home, kind)
    with contextlib.suppress(Timeout), lock.acquire(timeout=seconds):
        return
    os.kill(int(_pid_file(home, kind).read_text()), signal.SIGKILL)
    lock.acquire(timeout=seconds)
    lock.release()


def _lock(home: Home, kind: Kind) -> FileLock:
    home.locks.mkdir(parents=True, exist_ok=True)
    return FileLock(home.locks / f"server-{kind}.lock")


def _pid_file(home: Home, kind: Kind) -> Path:
    return home.locks / f"server-{kind}.pid"


# --- the process itself -------------------------------------------------------------------------------------------------


def serve(kind: Kind, listener: socket.socket, host: str, ready: IO[str]) -> None:
    """Serve, write a line to `ready` when the server answers, and stop when standard input closes."""
    end = _End()
    home = environment.current_home()
    alive = _lock(home, kind)  # held as long as this name exists, that is until the process ends
    if kind != "embedded":  # each run has its own
        alive.acquire()
        _pid_file(home, kind).write_text(str(os.getpid()))
    gc.disable()  # until it answers: scanning a million permanent objects takes a quarter of the startup
    application: Callable[[], Any]
    prepared: Callable[[], None] | None
    if kind == "mlflow":
        end.in_order = True  # it may be making a database
        application, prepared = functools.partial(_mlflow, home), None
    else:
        application, prepared = _prefect, _prepare_database(home, end)
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.should_exit:
                return
            gc.freeze()
            gc.enable()
            if prepared is not None:
                prepared()
            end.in_order = True
            ready.write("ready\n")
            ready.flush()

    config = uvicorn.Config(
        functools.partial(_guarded, kind, application, listener, host),
        factory=True,
        log_level="warning",
        lifespan="on",
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    end.server = Server(config)
    end.server.run(sockets=[listener])
    os._exit(0)  # everything is written; the interpreter would wait seconds for idle threads


class _End:
    """Ends this process when its standard input closes: at once, or cleanly if something could be damaged."""

    def __init__(self) -> None:
        self.in_order = False
        self.server: Any = None
        threading.Thread(target=self._await, daemon=True).start()

    def _await(self) -> None:
        with contextlib.suppress(OSError):
            os.read(0, 1)
        deadline = time.monotonic() + _SECONDS_TO_START
        while self.in_order and time.monotonic() < deadline:
            if self.server is not None:
                self.server.should_exit = True
            time.sleep(0.05)
        os._exit(0)


def _guarded(kind: Kind, application: Callable[[], Any], listener: socket.socket, host: str) -> Any:
    from flows.guard import LOOPBACK, Guard

    if is_loopback(listener):
        hosts, any_address = LOOPBACK | {host}, False
    else:
        hosts, any_address = LOOPBACK | {host, socket.gethostname()}, True
    if kind != "mlflow":  # Prefect asks for the login itself
        return Guard(application(), hosts, any_address=any_address)
    # MLflow's assistant starts programs for anybody on this machine, other users included.
    closed = ("/ajax-api/3.0/mlflow/assistant", "/ajax-api/3.0/jobs")
    return Guard(application(), hosts, any_address=any_address, login=os.environ.get(LOGIN), closed=closed)


def is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _prefect() -> Any:
    """Prefect's API and, unless it is embedded, its page, which uses the address at which it was opened."""
    from prefect.server.api.server import create_app
    from prefect.settings import PREFECT_UI_API_URL, temporary_settings

    application = create_app(final=True)

    async def opened_anywhere(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/ui-settings":
            await application(scope, receive, send)
            return
        host = next(value.decode("latin-1") for name, value in scope["headers"] if name == b"host")
        with temporary_settings({PREFECT_UI_API_URL: f"{scope['scheme']}://{host}/api"}):
            await application(scope, receive, send)

    return opened_anywhere


def _prepare_database(home: Home, end: _End) -> Callable[[], None] | None:
    """Let one process at a time migrate an empty database of Prefect. Returns what to do when that has happened."""
    migrated = home.prefect / f".migrated-{importlib.metadata.version('prefect')}"
    if migrated.exists():
        return None
    end.in_order = True
    home.prefect.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home.prefect / ".migration.lock")
    lock.acquire()
    database = home.prefect / "prefect.db"
    if TEMPLATE.exists() and not database.exists():
        draft = database.with_suffix(".draft")
        shutil.copyfile(TEMPLATE, draft)
        draft.replace(database)

    def done() -> None:
        migrated.touch()
        lock.release()

    return done


def _mlflow(home: Home) -> Any:
    """MLflow's application, as `mlflow server` sets it up, but it opens on training runs, and without its jobs, which run code that
    a client registers."""
    os.environ |= {
        # Our guard is stricter: it checks reads, too, and does not accept pages from another port.
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    from mlflow.server import constants

    from metaopt_core.tracking.connection import embedded_uri, initialize

    initialize(home)
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: embedded_uri(home),
        constants.REGISTRY_STORE_URI_ENV_VAR: embedded_uri(home),
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str(home.mlflow / "artifacts"),
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    from mlflow.server import REL_STATIC_DIR
    from mlflow.server import app as pages
    from mlflow.server.fastapi_app import app

    first_visit = f"for (const [key, value] of Object.entries({json.dumps(_FIRST_VISIT)}))" + (
        " if (!(key in localStorage)) localStorage.setItem(key, JSON.stringify(value))"
    )
    page = (Path(pages.root_path) / REL_STATIC_DIR / "index.html").read_text()
    page = page.replace("<head>", f"<head><script>{first_visit}</script>", 1)

    async def opened_on_runs(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
            await app(scope, receive, send)
            return
        headers = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": page.encode()})

    return opened_on_runs


def main() -> None:
    kind, descriptor, host = sys.argv[1:]
    ready = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    serve(kind, socket.socket(fileno=int(descriptor)), host, ready)  # type: ignore[arg-type]  # our own command line


if __name__ == "__main__":
    main()
