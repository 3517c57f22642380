"""The environment of a process is read where a run begins, and the library is handed values."""

import ast
import sys
from pathlib import Path

import pytest

from flows import environment
from metaopt_core.distributions.omniglot import OmniglotSpec
from metaopt_core.distributions.omniglot.archives import VARIABLE
from tests.made_outputs import sinusoid_spec
from tests.small import SMALL_CONV

ROOT = Path(__file__).resolve().parents[2]


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
