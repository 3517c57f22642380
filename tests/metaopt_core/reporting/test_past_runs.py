"""Past runs in a list, and side by side."""

import json
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from metaopt_core.pipeline.history import Past, past
from metaopt_core.pipeline.home import Home
from metaopt_core.reporting import past_runs
from tests.made_outputs import TASKS, sinusoid_spec
from tests.metaopt_core.pipeline.test_history import log_of


@pytest.fixture
def two(tmp_path: Path) -> list[Past]:
    """Two runs on the same meta-test tasks, the second of which is better on every task."""
    home = Home(tmp_path)
    for inner_lr in (0.02, 0.01):
        log_of(home, sinusoid_spec("waves", evaluate={"steps": 2, "inner_lr": inner_lr}))
    there = past(home)
    better = there[1].folders["evaluate"] / "tasks.parquet"
    table = pd.read_parquet(better)
    table["loss_2"] -= [0.1 + 0.01 * (task % TASKS) for task in range(len(table))]
    table.to_parquet(better, index=False)
    return there


def test_a_pipelines_runs_are_listed_with_what_differs(two: list[Past]) -> None:
    table = past_runs.listed(two)
    assert [row.cells[0].text for row in table.rows] == [one.id for one in two]
    assert table.rows[0].group
    assert table.rows[0].group.text == "waves: mean squared error"
    assert ["inner_lr=0.01" in row.cells[-1].text for row in table.rows] == [True, False]
    assert "train" not in table.rows[0].cells[-1].text
    assert table.rows[0].cells[2].text == "0.333 ± 0.100"
    assert table.rows[0].cells[3].text == "−0.250 ± 0.100"


def test_runs_on_the_same_tasks_are_compared_task_by_task(two: list[Past]) -> None:
    rows = {row.cells[0].text: [cell.text for cell in row.cells[1:]] for row in past_runs.results(two).rows}
    assert rows["Mean squared error"] == ["0.333 ± 0.100", "0.333 ± 0.100"]
    expected = [-0.1 - 0.01 * task for task in range(TASKS)]
    half = stats.sem(expected) * stats.t.ppf(0.975, TASKS - 1)
    assert rows[f"  minus {two[0].id}"] == ["", f"−0.115 ± {half:.3f}"]
    (found,) = past_runs.differences(two)
    assert found
    assert found["mean"] == pytest.approx(-0.115)
    assert found["survives"]
    assert [row.cells[0].text for row in past_runs.settings(two).rows] == ["evaluate.baseline_lrs", "evaluate.inner_lr"]


def test_runs_on_other_tasks_have_no_difference(two: list[Past], tmp_path: Path) -> None:
    home = Home(tmp_path)
    log_of(home, sinusoid_spec("others", generate={"distribution": "sinusoid", "noise": 1.0}))
    other = past(home)[0]
    table = past_runs.results([two[0], other])
    assert not any("minus" in row.cells[0].text and row.cells[2].text.startswith(("+", "−")) for row in table.rows[:4])
    assert "the meta-test tasks are not the same" in table.note
    assert past_runs.differences([two[0], other]) == [None]


def test_results_of_another_form_are_not_read(two: list[Past]) -> None:
    assert all(past_runs.readable(one) for one in two)
    (two[0].folders["evaluate"] / "summary.json").write_text(json.dumps({"metric": "mse"}))
    fresh = past(Home(two[0].folders["log"].parents[2]))
    assert [past_runs.readable(one) for one in fresh] == [False, True]
