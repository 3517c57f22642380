# ruff: noqa: E501
"""The folder that holds all state: who may look into it, where it lies, and what is said of a place where it can't."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import environment
from metaopt_core.errors import UserError
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.identity import identities
from metaopt_core.pipeline.store import Store
from metaopt_core.tracking.connection import initialize
from tests.made_outputs import sinusoid_spec


def _mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    before = os.umask(0o022)
    yield Home(tmp_path / "around" / ".metaopt")
    os.umask(before)


def test_a_home_is_made_for_its_owner_alone_by_whatever_comes_first(home: Home) -> None:
    identity = identities(sinusoid_spec("home"))["generate"]
    with Store(home).publish(identity, {}):
        pass
    assert _mode(home.root) == 0o700
    another = Home(home.root.with_name("another"))
    initialize(another)
    assert _mode(another.root) == 0o700
    assert _mode(home.root.parent) == 0o755


def test_a_home_that_was_shared_on_purpose_stays_so(home: Home) -> None:
    home.make()
    home.root.chmod(0o750)
    with Store(home).locked(identities(sinusoid_spec("home"))["generate"]):
        pass
    assert _mode(home.root) == 0o750


def test_a_home_that_an_earlier_version_left_open_is_closed_once(home: Home) -> None:
    home.prefect.mkdir(parents=True)
    home.outputs.mkdir()
    assert _mode(home.root) == 0o755
    assert home.close() == 0o755
    assert _mode(home.root) == 0o700
    home.root.chmod(0o755)
    assert home.close() is None
    assert _mode(home.root) == 0o755


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o2775])
def test_the_mode_of_a_folder_that_a_user_made_stays(home: Home, mode: int) -> None:
    home.root.mkdir(parents=True)
    home.root.chmod(mode)
    if mode != 0o755:
        home.prefect.mkdir()
        home.outputs.mkdir()
    assert home.close() is None
    home.prefect.mkdir(exist_ok=True)
    home.outputs.mkdir(exist_ok=True)
    assert home.close() is None
    assert _mode(home.root) == mode


# --- where it lies ---


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("METAOPT_HOME")
    return tmp_path.resolve()


def test_home_lies_beside_the_file_or_around_it(folder: Path) -> None:
    assert Home.beside(Path("pipelines.yaml")).root == folder / ".metaopt"
    assert Home.beside(Path(".metaopt/sweeps/x/best.yaml")).root == folder / ".metaopt"
    Path("loop.yaml").symlink_to("loop.yaml")
    assert Home.beside(Path("loop.yaml")).root == folder / ".metaopt"


def test_home_is_where_the_environment_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert Home.beside(Path("pipelines.yaml"), "~/state").root == folder / "state"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("~nosuchuser/x", "METAOPT_HOME=~nosuchuser/x: no user nosuchuser on this machine: expected a path as in /data, or ./~nosuchuser"),
        ("file", "METAOPT_HOME=file: a file, and expected a folder"),
        ("pipe", "METAOPT_HOME=pipe: a file, and expected a folder"),
        ("file/below", "METAOPT_HOME=file/below: Not a directory, and expected a folder, or a place for one"),
        ("a" * 300, f"METAOPT_HOME={'a' * 184}…: File name too long, and expected a folder, or a place for one"),
        ("loop", "METAOPT_HOME=loop: Too many levels of symbolic links, and expected a folder, or a place for one"),
    ],
    ids=lambda text: text[:10],
)  # fmt: skip
def test_what_can_be_no_home_is_said_by_every_command(folder: Path, named: str, message: str) -> None:
    Path("file").write_text("")
    Path("loop").symlink_to("loop")
    os.mkfifo("pipe")
    with pytest.raises(UserError) as error:
        Home.beside(Path("pipelines.yaml"), named)
    assert str(error.value) == message
    assert sorted(path.name for path in Path().iterdir()) == ["file", "loop", "pipe"]


def test_file_that_lies_where_the_home_is_to_be(folder: Path) -> None:
    Path(".metaopt").write_text("")
    with pytest.raises(UserError, match=r"^\.metaopt: a file, and expected a folder$"):
        environment.home_of(Path("pipelines.yaml"))
