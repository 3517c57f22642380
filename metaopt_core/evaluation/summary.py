"""summary.json: the results from the table of tasks, which every report reads (`metaopt_core.evaluation.verdict`)."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from metaopt_core.evaluation.by_shots import by_shots
from metaopt_core.evaluation.metrics.calibration_error import bins
from metaopt_core.evaluation.protocol import COVERAGE, INTERVALS, Measured, Prepared, transductive
from metaopt_core.evaluation.recommendation import recommend
from metaopt_core.evaluation.shared_groups import SharedGroups
from metaopt_core.evaluation.statistics import groups_of, note_survivors, one_a_task, paired, statistics
from metaopt_core.evaluation.verdict import note_changes
from metaopt_core.methods.contract import COLLECTED, INDUCTIVE, Setting
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.evaluate import IN_DISTRIBUTION
from metaopt_core.spec.metric import LOSS, Metric
from metaopt_core.spec.networks import PicturesSpec

DIVERGED_FACTOR = 10.0
"""A task has diverged if its loss is not finite, or more than this many times the largest loss of any task before adaptation."""


def summarize(
    setting: Setting, measured: Measured, compared: Sequence[Prepared], chosen: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The protocol and, for each method and number of steps, the statistics over tasks, as JSON values.

    No task is left out: where a loss is not finite, nor are the mean and its interval (null in JSON), and `diverged` says why.
    `metrics` says how to read each metric's numbers, and `primary` which one methods are compared by. `model` is the method that
    the logged model adapts by; `differences` compares each pair of methods task by task, at the horizon; `survives`, whether a
    difference does after the correction of Holm for the number of comparisons. `groups`: how many classes or other groups the tasks
    share, over which intervals are then bootstrapped. `shifted`: for each
    variant the same, with what it `changes`, and each method's `change` (`note_changes`). All of that is with the largest number
    of support examples; `by_shots` has the results with each (`by_shots.by_shots`), and `recommendation` what follows from them
    (`recommendation.recommend`). chosen: how the logged model was, where meta-validation tasks did it (`choice.choose`).
    """
    spec = setting.spec
    rows = dict(iter(one_a_task(measured.tasks).groupby("variant", sort=False)))
    model = chosen["method"] if chosen else spec.model_method
    found = _summary(setting, rows[IN_DISTRIBUTION], measured.pooled[IN_DISTRIBUTION], compared, model)
    found |= {"chosen": dict(chosen)} if chosen else {}
    if names := setting.distribution.task_names("test"):
        found["task_names"] = list(names)
    variants = {}
    for name, shifted in spec.shifted.items():
        variants[name] = _summary(
            Setting(shifted, setting.shape, setting.distribution), rows[name], measured.pooled[name], compared, model
        )
        variants[name]["changes"] = spec.shifts[name].model_dump(mode="json")
        note_changes(found, variants[name])
    note_survivors(found, variants)
    curve = by_shots(setting.spec, measured.tasks[measured.tasks["variant"] == IN_DISTRIBUTION], compared)
    found |= {"shifted": variants} | curve
    return found | ({"recommendation": recommendation} if (recommendation := recommend(found)) else {})


def _summary(
    setting: Setting, table: pd.DataFrame, pooled: Mapping[str, Mapping[str, float]], compared: Sequence[Prepared], model: str
) -> dict[str, Any]:
    spec = setting.spec
    by_task = [one for one in spec.metrics if not one.pooled]
    found = {str(method): rows.reset_index(drop=True) for method, rows in table.groupby("method", sort=False)}
    learned_lr = spec.train.inner.learned_lr
    shared = groups_of(next(iter(found.values())))
    return {
        "targets": setting.shape.targets,
        "metrics": {one.name: as_read(one) | _own_unit(one, setting.shape) for one in spec.metrics},
        "primary": by_task[0].name,
        "normalization": _normalization(setting),
        "reduction": spec.train.reduction,
        "tasks": int(table["task"].nunique()),
        "groups": shared.count if shared else None,
        "ways": spec.train.ways,
        "shots": spec.evaluate_shots,
        "queries": spec.evaluate_queries,
        "repeats": spec.evaluate.repeats,
        "inner_lr": spec.evaluate_inner_lr,
        "learned_lr": None if learned_lr == "none" else learned_lr.replace("_", " "),
        "baseline_lrs": list(spec.baseline_lrs),
        "horizon": spec.horizon,
        "algorithm": spec.train.label,
        "learned": spec.learned.key(spec.train),
        "model": model,
        "methods": {one.key: _of_method(setting, by_task, one, found[one.key], pooled[one.key], shared) for one in compared},
        "differences": [
            {"of": one, "against": other} | _difference(by_task, found[one], found[other], spec.horizon, shared)
            for one, other in combinations(found, 2)
        ],
    }


def as_read(metric: Metric) -> dict[str, Any]:
    """How to read a metric's numbers."""
    read = ("title", "about", "larger_is_better", "form", "unit", "pooled")
    return {name: getattr(metric, name) for name in read}


def _own_unit(metric: Metric, shape: TaskShape) -> dict[str, Any]:
    """The target's, of a metric that is in it."""
    return {"unit": shape.target_names[0], "in_unit": True} if metric.power == 1 and len(shape.target_names) == 1 else {}


def _of_method(
    setting: Setting,
    metrics: Sequence[Metric],
    one: Prepared,
    rows: pd.DataFrame,
    pooled: Mapping[str, float],
    shared: SharedGroups | None,
) -> dict[str, Any]:
    inner_lr = float(rows["inner_lr"].iloc[0]) if "inner_lr" in rows else np.nan

    def alone(prefix: str) -> dict[str, Any] | None:
        columns = {metric: f"{prefix}{metric.name}" for metric in metrics}
        there = {metric: name for metric, name in columns.items() if name in rows and rows[name].notna().any()}
        values = {metric: rows[name].to_numpy(np.float64) for metric, name in there.items()}
        return {metric.name: statistics(found, metric.larger_is_better, shared) for metric, found in values.items()} or None

    covered = [percent for percent in INTERVALS if f"{COVERAGE}{percent}" in rows and rows[f"{COVERAGE}{percent}"].notna().any()]
    coverage = {str(percent): statistics(rows[f"{COVERAGE}{percent}"].to_numpy(np.float64), shared=shared) for percent in covered}
    confidence = "confidence" in rows and bins(np.concatenate(list(rows["confidence"])), np.concatenate(list(rows["correct"])))
    return {
        "label": one.label,
        "about": one.method.about,
        "color": one.method.color,
        "line": one.method.line,
        "baseline": one.method.baseline,
        "takes_steps": one.method.takes_steps,
        "reference": one.method.reference,
        "simple": one.method.simple,
        "inner_lr": inner_lr if np.isfinite(inner_lr) else None,
        "steps": _by_step(metrics, rows, setting.spec.evaluate.steps, shared),
        "inductive": alone(INDUCTIVE),
        "collected": alone(COLLECTED),
        "pooled": dict(pooled),
        "calibration": confidence or None,
    } | ({"coverage": coverage} if coverage else {})


def _normalization(setting: Setting) -> str | None:
    """The normalization in words; for a custom module, whether it is transductive. None if there is nothing to say."""
    model = setting.spec.train.model
    if isinstance(model, PicturesSpec):
        return model.normalized_by
    return "transductive network" if transductive(setting) else None


def _by_step(metrics: Sequence[Metric], rows: pd.DataFrame, steps: int, shared: SharedGroups | None) -> list[dict[str, Any]]:
    start = rows[f"{LOSS}_0"].to_numpy(np.float64)
    largest = DIVERGED_FACTOR * float(start.max())
    found = []
    for step in range(steps + 1):
        loss = rows[f"{LOSS}_{step}"].to_numpy(np.float64)
        values = {one: rows[f"{one.name}_{step}"].to_numpy(np.float64) for one in metrics}
        found.append(
            {
                "step": step,
                "diverged": int((~np.isfinite(loss) | (loss > largest)).sum()),
                "improved": float((loss < start).mean()),
                **{one.name: statistics(each, one.larger_is_better, shared) for one, each in values.items()},
            }
        )
    return found


def _difference(
    metrics: Sequence[Metric], one: pd.DataFrame, other: pd.DataFrame, step: int, shared: SharedGroups | None
) -> dict[str, Any]:
    """Task by task, one method's number minus another's; `better`: the share of tasks in which the one has the smaller loss."""
    found: dict[str, Any] = {}
    for metric in metrics:
        name = f"{metric.name}_{step}"
        first, second = (rows[name].to_numpy(np.float64) for rows in (one, other))
        with np.errstate(invalid="ignore"):
            found[metric.name] = paired(first - second, shared)
    found["better"] = float((one[f"{LOSS}_{step}"] < other[f"{LOSS}_{step}"]).mean())
    return found
