"""What the processes that we start find in their environment."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.environment import API_URL, Api, prepare, python
from metaopt_core.pipeline.home import Home


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_no_process_imports_from_the_folder_in_which_it_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    by_name = [sys.executable, "-c", "import mine"]
    assert subprocess.run(by_name, cwd=tmp_path, check=False).returncode == 0
    prepare(Home(tmp_path / "home"), quiet=True)
    for command in (by_name, python("mine")):
        failed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "No module named" in failed.stderr


def test_a_server_of_ours_is_asked_with_its_login_and_another_one_with_what_the_user_has_set() -> None:
    os.environ["PREFECT_API_KEY"] = "theirs"
    Api("http://127.0.0.1:1/api").use()
    assert (os.environ[API_URL], os.environ["PREFECT_API_KEY"]) == ("http://127.0.0.1:1/api", "theirs")
    Api("http://127.0.0.1:2/api", "metaopt:secret").use()
    assert os.environ["PREFECT_API_AUTH_STRING"] == "metaopt:secret"
    assert "PREFECT_API_KEY" not in os.environ
