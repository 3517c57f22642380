"""The statistics over meta-test tasks: what the table of tasks comes to, as one summary that every report reads."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from metaopt_core.evaluation.metrics.calibration_error import bins
from metaopt_core.evaluation.protocol import Measured, Prepared, transductive
from metaopt_core.methods.contract import COLLECTED, INDUCTIVE, Setting
from metaopt_core.spec.evaluate import IN_DISTRIBUTION
from metaopt_core.spec.metric import Metric
from metaopt_core.spec.networks import PicturesSpec

CONFIDENCE = 0.95
WORST_SHARE = 0.1
DIVERGED_FACTOR = 10.0
"""A task has diverged where its loss is not finite, or more than this many times the largest loss of any task before adaptation."""

LOSS = "loss"
"""The metric that every kind of tasks has, and that training minimizes."""

_QUANTILES = {"q05": 0.05, "q25": 0.25, "q75": 0.75, "q95": 0.95}

Array = npt.NDArray[np.float64]


def summarize(setting: Setting, measured: Measured, compared: Sequence[Prepared]) -> dict[str, Any]:
    """The protocol and, for each method and number of steps, the statistics over tasks, as JSON values.

    No task is left out: where a loss is not finite, nor are the mean and its interval (null in JSON), and `diverged` says why.
    `metrics` says how to read each metric's numbers, and `primary` which one methods are compared by. `model` is the method that
    the logged model adapts by; `differences` compares each pair of methods task by task, at the horizon. `shifted`: for each
    variant the same, with what it `changes`, and each method's `change` (`note_changes`).
    """
    spec = setting.spec
    rows = dict(iter(measured.tasks.groupby("variant", sort=False)))
    found = _summary(setting, rows[IN_DISTRIBUTION], measured.pooled[IN_DISTRIBUTION], compared)
    variants = {}
    for name, shifted in spec.shifted.items():
        variants[name] = _summary(
            Setting(shifted, setting.shape, setting.distribution), rows[name], measured.pooled[name], compared
        )
        variants[name]["changes"] = spec.shifts[name].model_dump(mode="json")
        note_changes(found, variants[name])
    return found | {"shifted": variants}


def note_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Note at each method of a variant's summary its `change`: by which fraction its mean and median of the primary metric at the
    horizon lie above or below those on the tasks that are not shifted.
    """
    for method, results in after["methods"].items():
        old, new = (summary["methods"][method]["steps"][summary["horizon"]][summary["primary"]] for summary in (before, after))
        results["change"] = {
            name: new[name] / old[name] - 1 if old[name] and new[name] is not None else None for name in ("mean", "median")
        }


def of_method(table: pd.DataFrame, column: str, method: str, larger_is_better: bool = False) -> dict[str, float | None]:
    """Statistics of one column over the tasks that are not shifted, for one method."""
    return statistics(_by_task(table, column, method), larger_is_better)


def paired(
    before: pd.DataFrame, column: str, method: str, after: pd.DataFrame, column_after: str, method_after: str
) -> dict[str, float | None]:
    """Statistics over the tasks of what one method does `after` minus what another did `before`: two tables of the same tasks."""
    return statistics(_by_task(after, column_after, method_after) - _by_task(before, column, method))


def _by_task(table: pd.DataFrame, column: str, method: str) -> Array:
    rows = table[(table["method"] == method) & (table["variant"] == IN_DISTRIBUTION)]
    return rows.sort_values("task")[column].to_numpy(np.float64)


def _summary(
    setting: Setting, table: pd.DataFrame, pooled: Mapping[str, Mapping[str, float]], compared: Sequence[Prepared]
) -> dict[str, Any]:
    spec = setting.spec
    by_task = [one for one in spec.metrics if not one.pooled]
    found = {str(method): rows.reset_index(drop=True) for method, rows in table.groupby("method", sort=False)}
    learned_lr = spec.train.inner.learned_lr
    return {
        "targets": setting.shape.targets,
        "metrics": {one.name: _as_read(one) for one in spec.metrics},
        "primary": by_task[0].name,
        "normalization": _normalization(setting),
        "reduction": spec.train.reduction,
        "tasks": int(table["task"].nunique()),
        "ways": spec.train.ways,
        "shots": spec.evaluate_shots,
        "queries": spec.evaluate_queries,
        "inner_lr": spec.evaluate_inner_lr,
        "learned_lr": None if learned_lr == "none" else learned_lr.replace("_", " "),
        "baseline_lrs": list(spec.baseline_lrs),
        "horizon": spec.horizon,
        "algorithm": spec.train.label,
        "learned": spec.learned.key(spec.train),
        "model": spec.model_method,
        "methods": {one.key: _of_method(setting, by_task, one, found[one.key], pooled[one.key]) for one in compared},
        "differences": [
            {"of": one, "against": other} | _difference(by_task, found[one], found[other], spec.horizon)
            for one, other in combinations(found, 2)
        ],
    }


def _as_read(metric: Metric) -> dict[str, Any]:
    """How to read a metric's numbers."""
    read = ("title", "larger_is_better", "form", "unit", "pooled")
    return {name: getattr(metric, name) for name in read}


def _of_method(
    setting: Setting, metrics: Sequence[Metric], one: Prepared, rows: pd.DataFrame, pooled: Mapping[str, float]
) -> dict[str, Any]:
    inner_lr = float(rows["inner_lr"].iloc[0]) if "inner_lr" in rows else np.nan

    def alone(prefix: str) -> dict[str, Any] | None:
        columns = {metric: f"{prefix}{metric.name}" for metric in metrics}
        there = {metric: name for metric, name in columns.items() if name in rows and rows[name].notna().any()}
        values = {metric: rows[name].to_numpy(np.float64) for metric, name in there.items()}
        return {metric.name: statistics(found, metric.larger_is_better) for metric, found in values.items()} or None

    confidence = "confidence" in rows and bins(np.concatenate(list(rows["confidence"])), np.concatenate(list(rows["correct"])))
    return {
        "label": one.label,
        "color": one.method.color,
        "line": one.method.line,
        "baseline": one.method.baseline,
        "takes_steps": one.method.takes_steps,
        "inner_lr": inner_lr if np.isfinite(inner_lr) else None,
        "steps": _by_step(metrics, rows, setting.spec.evaluate.steps),
        "inductive": alone(INDUCTIVE),
        "collected": alone(COLLECTED),
        "pooled": dict(pooled),
        "calibration": confidence or None,
    }


def _normalization(setting: Setting) -> str | None:
    """In words; of a custom module, whether it is transductive. None where there is nothing to say."""
    model = setting.spec.train.model
    if isinstance(model, PicturesSpec):
        return model.normalized_by
    return "transductive network" if transductive(setting) else None


def _by_step(metrics: Sequence[Metric], rows: pd.DataFrame, steps: int) -> list[dict[str, Any]]:
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
                **{one.name: statistics(each, one.larger_is_better) for one, each in values.items()},
            }
        )
    return found


def statistics(values: Array, larger_is_better: bool = False) -> dict[str, float | None]:
    """Mean, half the width of its 95 % interval, median, quantiles and the mean of the 10 % worst; null where not finite."""
    ordered = np.where(np.isnan(values), np.inf, values)  # a loss that is not a number is worse than any that is one
    found = _mean(values) | {"median": np.quantile(ordered, 0.5, method="nearest")}
    found |= {name: np.quantile(ordered, q, method="nearest") for name, q in _QUANTILES.items()}
    worst = int(np.ceil(WORST_SHARE * len(values)))
    found["worst"] = np.sort(ordered)[:worst].mean() if larger_is_better else np.sort(ordered)[-worst:].mean()
    return _finite(found)


def _mean(values: Array) -> dict[str, float]:
    """The mean over tasks and half the width of its 95 % interval (Student's t)."""
    with np.errstate(invalid="ignore"):
        half = stats.sem(values) * stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1) if len(values) > 1 else np.nan
        return {"mean": values.mean(), "ci95": half}


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def _difference(metrics: Sequence[Metric], one: pd.DataFrame, other: pd.DataFrame, step: int) -> dict[str, Any]:
    """Task by task, one method's number minus another's; `better`: the share of tasks in which the one has the smaller loss."""
    found: dict[str, Any] = {}
    for metric in metrics:
        name = f"{metric.name}_{step}"
        first, second = (rows[name].to_numpy(np.float64) for rows in (one, other))
        with np.errstate(invalid="ignore"):
            found[metric.name] = _finite(_mean(first - second))
    found["better"] = float((one[f"{LOSS}_{step}"] < other[f"{LOSS}_{step}"]).mean())
    return found
