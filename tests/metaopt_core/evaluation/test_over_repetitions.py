"""Several seeds as one: means over them with intervals over them, and nothing where one of them has nothing."""

import copy
from typing import Any

import pytest
from scipy import stats

from metaopt_core.evaluation.over_repetitions import summarize
from tests.summaries import method, statistics, summary, variant


def seeds(*losses: float | None) -> list[dict[str, Any]]:
    """A summary for each seed, whose model has such a mean loss at its end."""
    found = []
    for loss in losses:
        methods = {"maml": method("MAML", [{"loss": statistics(2.0)}, {"loss": statistics(1.0) | {"mean": loss}}])}
        methods["random"] = method("random init", [{"loss": statistics(2.0)}, {"loss": statistics(1.5)}])
        far = variant(copy.deepcopy(methods), {"x": [5.0, 10.0]})
        found.append(summary(methods, horizon=1, shifted={"far": far}))
    return found


def test_a_mean_is_that_of_the_seeds_with_students_interval_over_them() -> None:
    loss = summarize(seeds(0.1, 0.3, 0.2), "seed")["methods"]["maml"]["steps"][1]["loss"]
    low, high = stats.t.interval(0.95, 2, 0.2, stats.sem([0.1, 0.3, 0.2]))
    assert (loss["mean"] - loss["ci95"], loss["mean"] + loss["ci95"]) == pytest.approx((low, high))
    assert loss["worst"] == pytest.approx(statistics(1.0)["worst"])  # of all else the mean


def test_a_seed_without_a_mean_is_not_averaged_away() -> None:
    entry = summarize(seeds(0.1, None), "seed")["methods"]["maml"]["steps"][1]
    assert (entry["loss"]["mean"], entry["loss"]["ci95"]) == (None, None)


def test_diverged_tasks_are_counted_over_all_seeds_and_a_step_size_is_said_where_all_have_it() -> None:
    each = seeds(0.1, 0.2)
    for place, one in enumerate(each):
        one["methods"]["maml"]["steps"][1]["diverged"] = 3
        one["methods"]["random"]["inner_lr"] = 0.01 * (1 + place)
    found = summarize(each, "seed")
    assert found["methods"]["maml"]["steps"][1]["diverged"] == 6
    assert found["methods"]["random"]["inner_lr"] is None
    assert found["methods"]["maml"]["inner_lr"] == each[0]["methods"]["maml"]["inner_lr"]


def test_it_says_what_was_repeated_and_shifted_tasks_are_averaged_too() -> None:
    found = summarize(seeds(0.1, 0.3), "split")
    assert found["repetitions"] == {"kind": "split", "count": 2}
    far = found["shifted"]["far"]["methods"]["maml"]
    assert far["steps"][1]["loss"]["mean"] == pytest.approx(0.2)
    assert far["change"]["mean"] == pytest.approx(0)
