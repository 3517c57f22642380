"""Prefect's ephemeral server for one `metaopt run`: on a free port of loopback, gone when the run's process ends, however it ends.

Prefect itself starts one if no address is set, but only when it is first needed, on a cold database that other processes may be
migrating too, and leaves it behind when the flow's process is killed. This one starts while the heavy libraries are being imported,
and asks for a password that only this run knows.

`make install` calls `python -P -m flows.embedded_server`, which prepares the database that every home starts from; without it the
first run in each home takes longer.
"""

import atexit
import contextlib
import os
import secrets
import socket
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

from flows.environment import Api
from flows.server_process import LOGIN, TEMPLATE, ServerProcess
from metaopt_core.errors import UserError
from metaopt_core.pipeline.home import Home

_SECONDS_TO_START = 90.0


class EmbeddedServer:
    """Starts on construction, in the background, at `api`. Stops when the interpreter exits.

    Make it before Prefect is imported: exit handlers run last in, first out, and Prefect's handlers send the remaining logs to the
    server.
    """

    def __init__(self, home: Home):
        login = f"metaopt:{secrets.token_urlsafe(24)}"
        settings = {LOGIN: login, "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self.api = Api(f"{address}/api", login)
            log = home.root / "logs" / "prefect-embedded.log"
            settings["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = address
            self._process = ServerProcess("embedded", listener, "127.0.0.1", log, **settings)
        atexit.register(self.stop)

    def wait(self) -> None:
        """Return when the server answers. Raises UserError."""
        try:
            self._process.wait_ready(_SECONDS_TO_START)
        except UserError as error:
            raise UserError(f"Prefect's embedded server {error}") from None

    def stop(self) -> None:
        self._process.stop()


def prepare() -> None:
    """Make the template database. Migrating takes ten seconds, which otherwise the first run of every home would spend."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", "-m", "prefect", "server", "database", "upgrade", "--yes"]
        subprocess.run(command, env=os.environ | {"PREFECT_HOME": folder}, check=True, stdout=subprocess.DEVNULL)
        TEMPLATE.parent.mkdir(parents=True, exist_ok=True)
        draft = TEMPLATE.with_suffix(f".{os.getpid()}")
        with contextlib.closing(sqlite3.connect(Path(folder) / "prefect.db")) as database:
            database.execute("VACUUM INTO ?", (str(draft),))
        draft.replace(TEMPLATE)


if __name__ == "__main__":
    prepare()
