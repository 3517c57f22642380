"""A pipeline for a table is written with what its columns suggest, and says what was guessed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metaopt_core.distributions.table.guessing import guess, pipelines_text
from metaopt_core.errors import UserError
from metaopt_core.spec.loader import load
from tests.metaopt_core.distributions.table.tables import frame


@pytest.fixture
def file(tmp_path: Path) -> Path:
    frame(20, 30).to_csv(tmp_path / "My data.csv", index=False)
    return tmp_path / "My data.csv"


def test_task_and_target_are_guessed_and_said(file: Path) -> None:
    found = guess(file, (), ())
    assert (found.name, found.task, found.target, found.drop, found.rows) == ("my-data", ("task",), ("y",), ("id",), 30)
    assert [said.partition(":")[0] for said in found.said] == ["task", "target", "dropped"]


def test_what_is_said_is_not_guessed(file: Path) -> None:
    found = guess(file, ("vendor",), ("x",), "own")
    assert (found.name, found.task, found.target) == ("own", ("vendor",), ("x",))
    assert not any(said.startswith(("task", "target")) for said in found.said)


@pytest.mark.parametrize("rows", [4, 12, 300])
def test_what_is_written_is_a_pipeline_that_its_tasks_are_large_enough_for(rows: int, tmp_path: Path) -> None:
    frame(20, rows).to_csv(tmp_path / "data.csv", index=False)
    text = pipelines_text(guess(tmp_path / "data.csv", ("task",), ("y",)), tmp_path / "data.csv", tmp_path / "pipelines.yaml")
    (tmp_path / "pipelines.yaml").write_text(text)
    spec = load(tmp_path / "pipelines.yaml")["data"]
    assert spec.generate.data()
    assert spec.evaluate_shots + spec.evaluate_queries <= rows


def test_few_values_of_text_are_classes(tmp_path: Path) -> None:
    rows = frame(20, 30)
    rows["y"] = np.where(rows.y > 100, "active", "inactive")
    rows.to_parquet(tmp_path / "data.parquet")
    found = guess(tmp_path / "data.parquet", (), ("y",))
    assert found.classes == 2
    text = pipelines_text(found, tmp_path / "data.parquet", tmp_path / "pipelines.yaml")
    (tmp_path / "pipelines.yaml").write_text(text)
    assert load(tmp_path / "pipelines.yaml")["data"].train.ways == 2


@pytest.mark.parametrize(
    ("name", "table", "task", "target", "says"),
    [
        ("data.xlsx", frame(), (), (), "an unknown type of file: expected .csv"),
        ("data.csv", frame(), ("tsak",), (), r"--task: .* has no column tsak, did you mean task\?"),
        ("data.csv", frame().head(0), (), (), "there is no row"),
        ("data.csv", frame()[["id", "y"]], (), (), r"no column looks like the names of tasks.*--task COLUMN, one of id, y"),
        (
            "data.csv",
            frame()[["task", "vendor"]],
            ("task",),
            (),
            r"no numeric column to predict: expected --target COLUMN, one of vendor",
        ),
        ("data.csv", frame(), ("task",), ("id",), r"--target: id is text of 360 values"),
    ],
)
def test_what_cannot_be_guessed_is_asked_for(
    name: str, table: pd.DataFrame, task: tuple[str, ...], target: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    table.to_csv(tmp_path / name, index=False)
    with pytest.raises(UserError, match=says):
        guess(tmp_path / name, task, target)
