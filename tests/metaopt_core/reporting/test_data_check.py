"""What is said of data before anything is trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from metaopt_core.reporting import data_check
from metaopt_core.spec.pipeline import PipelineSpec
from tests.metaopt_core.distributions.table.tables import frame, of_frame
from tests.small import setting_of

TRAIN = {"model": {"name": "mlp"}, "iterations": 10, "shots": {"low": 2, "high": 5}, "queries": 4}


def asked(**train: Any) -> PipelineSpec:
    generate = {"distribution": "table", "path": "data.parquet", "task": "task", "target": "y"}
    evaluate = {"shots": [2, 6, 20], "queries": 5}
    return PipelineSpec.model_validate({"name": "own", "generate": generate, "train": TRAIN | train, "evaluate": evaluate})


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> data_check.Checked:
    rows = frame(40, 12)
    rows = rows[(rows.task != "t05") | (rows.groupby("task").cumcount() < 8)]
    rows.loc[rows.task == "t07", "y"] = 3.0
    rows["number"] = np.arange(len(rows))
    table, _ = of_frame(rows.assign(same=0.0), tmp_path_factory.mktemp("checked"))
    return data_check.check(asked(), table)


def test_tasks_are_counted_by_split_and_by_what_they_are_large_enough_for(checked: data_check.Checked) -> None:
    assert sum(map(len, checked.findings.sizes.values())) == 40
    counts = {what: (count, total) for what, _, count, total in checked.enough}
    tests = len(checked.findings.sizes["test"])
    assert list(counts) == [
        "validation: 2 to 5 examples, 4 queries",
        *(f"{what} {shots} examples, 5 queries" for shots in (2, 6, 20) for what in ("evaluation:", "choosing for")),
    ]
    assert counts["evaluation: 2 examples, 5 queries"] == (tests, tests)
    assert counts["evaluation: 20 examples, 5 queries"] == (0, tests)
    assert ["meta-test" in refusal for refusal in checked.refusals] == [True, False]
    assert all("tasks have fewer than the 25 rows" in refusal for refusal in checked.refusals)
    assert len(data_check.large_enough(checked).rows) == 7
    splits = data_check.splits(checked)
    assert splits is not None
    assert [row.cells[0].text for row in splits.rows] == ["train", "validation", "test"]


def test_what_may_be_wrong_is_said(checked: data_check.Checked) -> None:
    found = " | ".join(checked.findings.warnings)
    assert "the target hardly varies in 1 meta-train task (t07)" in found
    assert "number is another whole number in each row" in found
    assert "same (the same in all rows of the meta-train tasks)" in checked.findings.facts["columns left out"]


def test_repeated_rows_are_counted(tmp_path: Path) -> None:
    rows = frame(40, 12)
    twice = rows[rows.task.isin(["t01", "t02"])].groupby("task").head(2)
    table, _ = of_frame(pd.concat([rows, twice]), tmp_path)
    warnings = data_check.check(asked(), table).findings.warnings
    trained = len({"t01", "t02"} & {*table.splits["train"].names})
    assert trained
    assert any(warning.startswith(f"{2 * trained} rows of {trained} meta-train task") for warning in warnings)


def test_tasks_that_are_made_as_they_are_needed_are_never_too_few(tmp_path: Path) -> None:
    body = {"name": "waves", "generate": {"distribution": "sinusoid"}, "train": TRAIN}
    setting = setting_of(PipelineSpec.model_validate(body), tmp_path)
    found = data_check.check(setting.spec, setting.distribution)
    assert (found.refusals, found.findings.warnings, data_check.splits(found)) == ([], (), None)
    assert found.as_json()["enough"][0]["tasks"] == 200
