"""A shell completes pipelines, stages and runs, and stays silent about a file that can't be read."""

from pathlib import Path

import pytest
import typer
from typer.main import get_command

from flows import complete
from flows.cli import app
from metaopt_core.pipeline.history import Past
from tests.flows.conftest import TINY


def typed(file: Path, after: bool = True) -> typer.Context:
    """The command line so far, with `-f` after the command or before it."""
    root = typer.Context(get_command(app))
    context = typer.Context(get_command(app).commands["run"], parent=root)  # type: ignore[attr-defined]
    (context if after else root).params["file"] = file
    return context


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pipelines.yaml"
    path.write_text(TINY)
    return path


def test_pipelines_by_their_beginning(file: Path) -> None:
    assert complete.pipelines(typed(file), "ti") == [("tiny", "A few iterations.")]
    assert complete.pipelines(typed(file, after=False), "") == [("tiny", "A few iterations.")]
    assert complete.pipelines(typed(file), "x") == []


def test_stages_by_their_beginning() -> None:
    assert [name for name, _ in complete.stages("")] == ["generate", "train", "evaluate", "log"]
    assert [name for name, _ in complete.stages("e")] == ["evaluate"]


def test_runs_by_id_and_by_pipeline(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Past("tiny", "0123456789abcdef", 0.0, 1.0, {}, {}, {}, {})
    monkeypatch.setattr("metaopt_core.pipeline.history.past", lambda _home: [one])
    assert complete.runs(typed(file), "") == [(one.id, "tiny"), ("tiny", "its newest run")]
    assert complete.runs(typed(file), one.id[:4]) == [(one.id, "tiny")]


@pytest.mark.parametrize("text", [None, "pipelines: [", "pipelines: {tiny: {train: 1}}"])
def test_a_file_that_is_missing_or_wrong_completes_nothing(file: Path, text: str | None, capfd: pytest.CaptureFixture[str]) -> None:
    file.unlink() if text is None else file.write_text(text)
    assert complete.pipelines(typed(file), "") == []
    assert complete.runs(typed(file), "") == []
    assert capfd.readouterr() == ("", "")
