"""The environment: what we read of it, once, where a run begins; and what the processes find in it that we start."""

import ast
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import environment
from flows.environment import API_URL, Api, prepare, python
from metaopt_core.distributions.omniglot import OmniglotSpec
from metaopt_core.distributions.omniglot.archives import VARIABLE
from metaopt_core.pipeline.home import Home
from tests.made_outputs import sinusoid_spec
from tests.small import SMALL_CONV

ROOT = Path(__file__).resolve().parents[2]


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


STARTER = """
import multiprocessing, os, time
from flows import environment

def child():
    environment.begin()
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=child).start()
"""


def test_a_process_that_serves_ends_when_the_one_that_started_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "starter.py").write_text(STARTER)
    command, path = [sys.executable, str(tmp_path / "starter.py")], {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=os.environ | path, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert int(starter.stdout.readline()) != starter.pid
        starter.kill()
        ended, _, _ = select.select([starter.stdout], [], [], 30)  # it closes with the last process that could write to it
        assert ended
        assert starter.stdout.read() == b""


def test_a_server_of_ours_is_asked_with_its_login_and_another_one_with_what_the_user_has_set() -> None:
    os.environ["PREFECT_API_KEY"] = "theirs"
    Api("http://127.0.0.1:1/api").use()
    assert (os.environ[API_URL], os.environ["PREFECT_API_KEY"]) == ("http://127.0.0.1:1/api", "theirs")
    Api("http://127.0.0.1:2/api", "metaopt:secret").use()
    assert os.environ["PREFECT_API_AUTH_STRING"] == "metaopt:secret"
    assert "PREFECT_API_KEY" not in os.environ


def test_an_execution_knows_what_the_environment_said_when_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAOPT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("METAOPT_TRACES", str(tmp_path / "traces"))
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    waves, pictures = environment.execution(sinusoid_spec("waves")), environment.execution(SMALL_CONV)
    for variable in ("METAOPT_HOME", "METAOPT_TRACES", VARIABLE):
        monkeypatch.delenv(variable)
    assert waves.home.root == tmp_path / "home"
    assert waves.traces == tmp_path / "traces"
    assert isinstance(pictures.spec.generate, OmniglotSpec)
    assert pictures.spec.generate.folder == str(tmp_path)


def test_modules_are_imported_from_the_folder_that_the_command_line_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = list(sys.path)
    monkeypatch.setattr("sys.path", path)
    monkeypatch.setenv(environment.MODULES, str(tmp_path))
    environment.begin()
    environment.begin()
    assert path.count(str(tmp_path)) == 1
    assert path[-1] == str(tmp_path)  # behind all else: nothing there is in the way of a library


def test_the_library_reads_none_of_it() -> None:
    """Of METAOPT_… it reads the limits of a logged model, which is a process of its own."""
    for path in (ROOT / "metaopt_core").rglob("*.py"):
        text = path.read_text()
        reads = any(isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"} for node in ast.walk(ast.parse(text)))
        assert not reads or "METAOPT_" not in text or path.name == "logged_model.py", path
