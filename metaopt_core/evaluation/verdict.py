"""Reading summary.json, in the same way for all reports: the best baseline, paired differences, and the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from metaopt_core.spec.evaluate import IN_DISTRIBUTION
from metaopt_core.spec.metric import LOSS

if TYPE_CHECKING:
    import pandas as pd  # takes a second, and what the command line needs here doesn't need it

Summary = Mapping[str, Any]
Statistics = Mapping[str, float | None]


def at_horizon(summary: Summary, method: str) -> dict[str, Any]:
    """A method's statistics after as many steps as the model is used with."""
    entry: dict[str, Any] = summary["methods"][method]["steps"][summary["horizon"]]
    return entry


def variants(summary: Summary) -> dict[str, Summary]:
    """The unshifted test tasks, and each shifted variant of them."""
    return {IN_DISTRIBUTION: summary, **summary["shifted"]}


def larger_is_better(summary: Summary) -> bool:
    """Of the metric that methods are compared by."""
    return bool(summary["metrics"][summary["primary"]]["larger_is_better"])


def best_baseline(summary: Summary) -> str | None:
    """The baseline with the best mean at the horizon, beside the logged model; none if no mean is finite."""
    methods = summary["methods"].items()
    baselines: list[str] = [name for name, method in methods if method["baseline"] and name != summary["model"]]
    means = {name: at_horizon(summary, name)[summary["primary"]]["mean"] for name in baselines}
    finite = {name: mean for name, mean in means.items() if mean is not None}
    if not finite:
        return None
    return (max if larger_is_better(summary) else min)(finite, key=lambda name: finite[name])


def difference(summary: Summary, of: str, against: str, key: str) -> dict[str, float | None] | None:
    """The paired difference of two methods, in whichever order it is recorded; none if it isn't recorded."""
    for found in summary["differences"]:
        if {found["of"], found["against"]} == {of, against}:
            values: dict[str, float | None] = dict(found[key])
            if values["mean"] is not None and found["of"] != of:
                values["mean"] *= -1
            return values
    return None


Outcome = Literal["better", "worse", "unclear"]


def outcome(summary: Summary, paired: Statistics | None) -> Outcome:
    """What a paired difference of the primary metric says of the first of the two; unclear if chance may explain it, all the
    other comparisons considered.
    """
    if paired is None or paired["mean"] is None or not paired.get("survives"):
        return "unclear"
    return "better" if (paired["mean"] > 0) == larger_is_better(summary) else "worse"


@dataclass(frozen=True)
class Verdict:
    """The result in short: the logged model's method compared with the best baseline, at the horizon.

    entry, of_baseline: statistics of the two. paired: of their difference, task by task. The last three are none without a
    baseline whose mean is finite.
    """

    model: str
    entry: Mapping[str, Any]
    outcome: Outcome
    baseline: str | None
    of_baseline: Mapping[str, Any] | None
    paired: Statistics | None


def verdict(summary: Summary) -> Verdict:
    model, baseline, key = summary["model"], best_baseline(summary), summary["primary"]
    paired = difference(summary, model, baseline, key) if baseline else None
    of_baseline = at_horizon(summary, baseline) if baseline else None
    return Verdict(model, at_horizon(summary, model), outcome(summary, paired), baseline, of_baseline, paired)


def note_changes(before: Summary, after: Summary) -> None:
    """Note at each method of a variant's summary its `change`: by which fraction its mean and median of the primary metric at the
    horizon are above or below those on the tasks that are not shifted.
    """
    for method, results in after["methods"].items():
        old, new = (at_horizon(summary, method)[summary["primary"]] for summary in (before, after))
        results["change"] = {
            name: (new[name] - old[name]) / abs(old[name]) if old[name] and new[name] is not None else None
            for name in ("mean", "median")
        }


def worst_tasks(summary: Summary, table: "pd.DataFrame", count: int) -> list[int]:
    """The tasks as trained for in which the method of the logged model has the largest losses at the horizon, the worst first."""
    from metaopt_core.evaluation.statistics import one_a_task  # imports SciPy, which is slow and not needed to read a summary

    rows = one_a_task(table[(table["method"] == summary["model"]) & (table["variant"] == IN_DISTRIBUTION)])
    losses = rows[f"{LOSS}_{summary['horizon']}"].fillna(np.inf).to_numpy(np.float64)
    return [int(task) for task in rows["task"].to_numpy()[np.argsort(-losses, kind="stable")[:count]]]
