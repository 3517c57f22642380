"""Prefect's ephemeral server for one `metaopt run`: on a free port of loopback, gone when the run's process is, however that ends.

Prefect starts one by itself where no address is set, but only when first needed, on a cold database without regard to other
processes that do the same, and leaves it behind when the flow's process is killed. Here it starts while the heavy libraries are
being imported, the first migration of a database happens under a lock, and the server stops when its standard input closes.

`python -m flows.embedded_server SOCKET` is the server's own process; `EmbeddedServer` is the handle to it. `make install` calls
`python -m flows.embedded_server prepare`; without it the first run in each home takes longer.
"""

import atexit
import contextlib
import gc
import importlib.metadata
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from filelock import FileLock

from metaopt_core.errors import UserError
from metaopt_core.pipeline.home import Home

TEMPLATE = Path(sys.prefix) / "share" / "metaopt" / f"prefect-{importlib.metadata.version('prefect')}.db"
"""An empty, migrated database: part of the installation where `prepare` has made it, and what every new home then starts from."""

_SECONDS_TO_START = 90.0
_SECONDS_TO_STOP = 5.0


class EmbeddedServer:
    """Starts on construction, in the background, at `address`. Stops when the interpreter exits.

    Make it before Prefect is imported: exit handlers run last in, first out, and Prefect's send what is left to the server.
    """

    def __init__(self, home: Home):
        logs = home.root / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self._log = logs / "prefect-embedded.log"
        environment = os.environ | {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        # Bound here and inherited, so that the address is known at once and no other process can take the port in between.
        with socket.create_server(("127.0.0.1", 0)) as listener, self._log.open("ab") as log:
            self.address = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.embedded_server", str(listener.fileno())],
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
                start_new_session=True,  # Ctrl-C is for the run, which still has to tell the server how it ended
            )
        atexit.register(self.stop)

    def wait(self) -> None:
        """Return when the server answers. Raises UserError."""
        assert self._process.stdout is not None
        timer = threading.Timer(_SECONDS_TO_START, self._process.kill)
        timer.start()
        ready = self._process.stdout.readline()
        timer.cancel()
        if not ready:
            tail = "\n".join(f"  {line}" for line in self._log.read_text(errors="replace").splitlines()[-15:])
            raise UserError(f"Prefect's embedded server did not start; the end of {self._log}:\n{tail}")

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def prepare() -> None:
    """Make the template. Migrating takes ten seconds, which the first run of every home would otherwise spend."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        subprocess.run(command, env=os.environ | {"PREFECT_HOME": folder}, check=True, stdout=subprocess.DEVNULL)
        TEMPLATE.parent.mkdir(parents=True, exist_ok=True)
        draft = TEMPLATE.with_suffix(f".{os.getpid()}")
        with contextlib.closing(sqlite3.connect(Path(folder) / "prefect.db")) as database:
            database.execute("VACUUM INTO ?", (str(draft),))
        draft.replace(TEMPLATE)


def serve(listener: socket.socket) -> None:
    """Serve Prefect's API, print a line when it answers, and stop when standard input closes."""
    import uvicorn

    gc.disable()  # until it answers: collecting among a million objects that stay takes a quarter of the start
    home = Home.current()
    migrated = home.prefect / f".migrated-{importlib.metadata.version('prefect')}"
    home.prefect.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home.prefect / ".migration.lock")
    if not migrated.exists():
        lock.acquire()  # one process at a time migrates an empty database
        database = home.prefect / "prefect.db"
        if TEMPLATE.exists() and not database.exists():
            shutil.copyfile(TEMPLATE, database)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.should_exit:
                return
            gc.freeze()
            gc.enable()
            migrated.touch()
            lock.release()
            print("ready", flush=True)

    config = uvicorn.Config(
        "prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on", timeout_graceful_shutdown=2
    )
    server = Server(config)

    def stop_when_alone() -> None:
        with contextlib.suppress(OSError):
            os.read(0, 1)
        server.should_exit = True

    threading.Thread(target=stop_when_alone, daemon=True).start()
    server.run(sockets=[listener])
    os._exit(0)  # all is written; what the interpreter would wait for is idle threads, for seconds


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare()
    else:
        serve(socket.socket(fileno=int(sys.argv[1])))
