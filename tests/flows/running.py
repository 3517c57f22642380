"""Real servers for tests: `metaopt up` on free ports, and waiting for what they come to."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flows.conftest import Project

SECONDS = 240  # a busy machine included


@dataclass(frozen=True)
class Up:
    """A running `metaopt up`."""

    process: "subprocess.Popen[str]"
    prefect: str
    mlflow: str
    log: Path

    @property
    def api(self) -> str:
        return f"{self.prefect}/api"


@contextmanager
def up(project: Project, *options: str, ports: tuple[int, int] | None = None, **environment: str) -> Iterator[Up]:
    """Servers for a project, until the block is left."""
    prefect, mlflow = ports or free_ports()
    log = project.folder / "up.log"
    arguments = ("up", "--prefect-port", str(prefect), "--mlflow-port", str(mlflow), *options)
    with project.started(*arguments, log=log, **environment) as process:
        note = project.home / "servers.json"
        eventually(lambda: "Ctrl-C" in log.read_text() and note.exists(), "servers", log, process=process)
        yield Up(process, f"http://127.0.0.1:{prefect}", f"http://127.0.0.1:{mlflow}", log)


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return one.getsockname()[1], two.getsockname()[1]


def eventually(
    found: Callable[[], Any], what: str, *logs: Path, process: "subprocess.Popen[str] | None" = None, seconds: float = SECONDS
) -> Any:
    """The first true result. Fails with the ends of the logs, at once where the process that is to bring it about has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        try:
            if value := found():
                return value
        except (httpx.HTTPError, OSError):
            pass
        time.sleep(0.3)
    pytest.fail(f"no {what} within {seconds} s\n" + "\n".join(log.read_text()[-4000:] for log in logs))


def children(pid: int) -> dict[int, str]:
    """The processes that a process has started and that live, with their command lines."""
    done = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    return {int(row[0]): row[3] for row in rows if len(row) == 4 and int(row[1]) == pid and not row[2].startswith("Z")}


def lives(pid: int) -> bool:
    """Whether there is such a process, other than as an entry that nobody has asked for."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()
    return bool(state) and not state.startswith("Z")
