"""A full disk is said in one line, whatever library meets it. /dev/full is always full, and SQLite can be told that it is."""

import contextlib
import shutil
import sqlite3
import subprocess
from pathlib import Path

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError

from flows.full_disk import explanation
from metaopt_core.errors import UserError
from tests.flows.conftest import Project


def _raised_by_sqlite() -> Exception:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(sqlite3.OperationalError) as error:
            database.execute("CREATE TABLE one (a)")
    return error.value


def _raised_by_prefect() -> Exception:
    request = httpx.Request("POST", "http://127.0.0.1:1/api/logs/")
    answer = httpx.Response(500, request=request, json={"exception_message": "Internal Server Error"})
    with pytest.raises(httpx.HTTPStatusError) as error:
        answer.raise_for_status()
    return PrefectHTTPStatusError.from_httpx_error(error.value)


def test_the_command_says_it_in_one_line(project: Project) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            project.command("schema"),
            cwd=project.folder,
            env=project.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("the disk is full: ")
    assert len(done.stderr.splitlines()) == 1


def test_it_is_recognized_below_an_error_that_says_something_else() -> None:
    error = UserError("MLflow can't be used: start it")
    error.__cause__ = _raised_by_sqlite()
    assert str(explanation(error)).startswith("the disk is full: ")


def test_an_error_of_a_server_is_put_down_to_it_only_where_little_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert explanation(_raised_by_prefect()) is None
    nearly_full = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: nearly_full)
    assert "0 MB are left for " in str(explanation(_raised_by_prefect()))
    assert explanation(ValueError("a defect")) is None
