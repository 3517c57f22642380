"""Several numbers of support examples, and several draws of them: a task counts once, and the rest is as with one of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from metaopt_core.distributions.batch import Episode, Tasks
from metaopt_core.evaluation.protocol import Measured, evaluate, prepare
from metaopt_core.evaluation.statistics import one_a_task
from metaopt_core.evaluation.summary import summarize
from metaopt_core.methods.contract import Setting, compared
from metaopt_core.networks.network import Params
from metaopt_core.spec.pipeline import PipelineSpec
from tests.small import phases_of, setting_of

SHOTS, REPEATS, TASKS = (3, 8), 2, 6
SPEC: dict[str, Any] = {
    "name": "assays",
    "generate": {"distribution": "tests.toys.assays:Assays", "held_out": {"validation_tasks": 5, "test_tasks": TASKS}},
    "train": {"model": {"name": "mlp", "hidden": [8]}, "iterations": 1, "shots": 8, "queries": 10, "baselines": []},
    "evaluate": {"steps": 1, "shots": list(SHOTS), "repeats": REPEATS},
}


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return setting_of(PipelineSpec.model_validate(SPEC), tmp_path_factory.mktemp("assays"))


@pytest.fixture(scope="module")
def measured(setting: Setting) -> Measured:
    return evaluate(setting, prepare(setting, compared(setting.spec), initial(setting)))


def initial(setting: Setting) -> Mapping[str, Params]:
    return {phase.key: phase.to_adapt(phase.initial) for phase in phases_of(setting)}


def with_one(setting: Setting, shots: int) -> Setting:
    evaluated = setting.spec.evaluate.model_copy(update={"shots": shots, "repeats": 1})
    return replace(setting, spec=setting.spec.model_copy(update={"evaluate": evaluated}))


def test_each_number_is_what_an_evaluation_with_it_alone_measures(setting: Setting, measured: Measured) -> None:
    for shots in SHOTS:
        alone = with_one(setting, shots)
        expected = evaluate(alone, prepare(alone, compared(alone.spec), initial(setting))).tasks
        rows = measured.tasks.query("shots == @shots and repeat == 0").drop(columns=["shots", "repeat"])
        pd.testing.assert_frame_equal(rows.reset_index(drop=True), expected)
        assert not {"shots", "repeat"} & set(expected.columns)


def test_a_repeat_has_other_support_examples_of_the_same_tasks(setting: Setting, measured: Measured) -> None:
    first, second = (
        Tasks.held_out(setting.distribution, "test", Episode(None, 8, 10, repeat=repeat)).all() for repeat in range(REPEATS)
    )
    assert (first.support_x != second.support_x).any()
    counts = measured.tasks.groupby(["method", "shots", "repeat"])["task"].nunique()
    assert set(counts) == {TASKS}
    assert len(counts) == measured.tasks["method"].nunique() * len(SHOTS) * REPEATS


def test_repeats_of_a_task_are_averaged_before_anything_else(setting: Setting, measured: Measured) -> None:
    found = summarize(setting, measured, prepare(setting, compared(setting.spec), initial(setting)))
    rows = measured.tasks.query("method == 'maml'")
    for entry, shots in zip(found["by_shots"], SHOTS, strict=True):
        of_tasks = rows[rows["shots"] == shots].groupby("task")["r2_1"].mean()
        statistics = entry["methods"]["maml"]["r2"]
        assert (entry["shots"], entry["tasks"], entry["left_out"]) == (shots, TASKS, 0)
        assert statistics["mean"] == pytest.approx(of_tasks.mean())
        half = float(of_tasks.std()) / TASKS**0.5 * 2.5705818  # Student's t with 5 degrees of freedom
        assert statistics["ci95"] == pytest.approx(half)
    assert found["shots"] == max(SHOTS)  # and the headline is that of the largest number
    assert found["methods"]["maml"]["steps"][1]["r2"]["mean"] == pytest.approx(statistics["mean"])
    over = found["over_shots"]["methods"]["maml"]["r2"]["mean"]
    assert over == pytest.approx(np.mean([entry["methods"]["maml"]["r2"]["mean"] for entry in found["by_shots"]]))


def test_a_repeat_that_is_not_finite_makes_its_task_so_and_lists_of_queries_are_put_together() -> None:
    table = pd.DataFrame(
        {
            "variant": "in-distribution",
            "method": "maml",
            "shots": 5,
            "repeat": [0, 0, 1, 1],
            "task": [0, 1, 0, 1],
            "loss_0": [1.0, 2.0, 3.0, np.nan],
            "correct": [[True], [False], [False], [True]],
        }
    )
    found = one_a_task(table)
    assert found["loss_0"].tolist() == pytest.approx([2.0, np.nan], nan_ok=True)
    assert [list(each) for each in found["correct"]] == [[True, False], [False, True]]


def test_a_task_with_too_few_examples_is_left_out_with_that_number_alone_and_counted(setting: Setting, measured: Measured) -> None:
    short = measured.tasks.query("not (shots == 8 and task == 2)")
    ready = prepare(setting, compared(setting.spec), initial(setting))
    found = summarize(setting, Measured(short, measured.pooled), ready)
    assert [(entry["tasks"], entry["left_out"]) for entry in found["by_shots"]] == [(TASKS, 0), (TASKS - 1, 1)]
    there = one_a_task(short, 3).query("method == 'maml' and task != 2")["r2_1"].to_numpy()
    both = (there + one_a_task(short, 8).query("method == 'maml'")["r2_1"].to_numpy()) / 2
    assert found["over_shots"]["methods"]["maml"]["r2"]["mean"] == pytest.approx(both.mean())
