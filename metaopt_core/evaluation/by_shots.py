"""Results with each number of support examples, and how often a method harms a task: a part of summary.json.

A task's repeats are averaged first, so that it counts once.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from metaopt_core.evaluation.protocol import Prepared
from metaopt_core.evaluation.shared_groups import SharedGroups
from metaopt_core.evaluation.statistics import groups_of, one_a_task, paired, statistics
from metaopt_core.spec.metric import Metric
from metaopt_core.spec.pipeline import PipelineSpec

_SAME = 1e-6  # equal numbers may differ this much by rounding

Values = Mapping[str, Mapping[str, npt.NDArray[np.float64]]]
"""Metric → method → its number of each task."""


def by_shots(spec: PipelineSpec, table: pd.DataFrame, compared: Sequence[Prepared]) -> dict[str, Any]:
    """`by_shots`, an entry for each number of support examples, and `over_shots`, one of each task's means over all of them.

    An entry has, at the horizon, `tasks`, how many were `left_out` because they have too few examples, for each method the
    statistics of each metric and the share of tasks that it has `harmed`, and the paired `differences` of each two methods by the
    metric that they are compared by. Empty if there is only one number of support examples and no reference for harm.

    A task is harmed by a method that is worse than the reference, such as the mean of the support set.
    """
    reference = next((one.key for one in compared if one.method.reference), None)
    if len(spec.evaluated_shots) == 1 and spec.evaluate.repeats == 1 and reference is None:
        return {}
    metrics = [one for one in spec.metrics if not one.pooled]
    every = table["task"].nunique()
    tables = {shots: one_a_task(table, shots) for shots in spec.evaluated_shots}
    known = {shots: _values(found, metrics, spec.horizon) for shots, found in tables.items()}
    entries = []
    for shots, found in tables.items():
        first = found[found["method"] == compared[0].key]
        entry = _entry(metrics, known[shots], groups_of(first), reference)
        entries.append({"shots": shots, "tasks": len(first), "left_out": every - len(first)} | entry)
    return {
        "by_shots": entries,
        "over_shots": _entry(metrics, *_over_all(tables, metrics, spec.horizon, compared[0].key), reference),
    }


def _values(table: pd.DataFrame, metrics: Sequence[Metric], horizon: int) -> Values:
    rows = {str(method): of_method.sort_values("task") for method, of_method in table.groupby("method", sort=False)}
    return {
        one.name: {method: found[f"{one.name}_{horizon}"].to_numpy(np.float64) for method, found in rows.items()} for one in metrics
    }


def _over_all(
    tables: Mapping[int, pd.DataFrame], metrics: Sequence[Metric], horizon: int, first: str
) -> tuple[Values, SharedGroups | None]:
    """The means over the numbers of support examples, of the tasks that there are with each of them."""
    everywhere = set.intersection(*(set(table["task"]) for table in tables.values()))
    there = [table[table["task"].isin(everywhere)] for table in tables.values()]
    each = [_values(table, metrics, horizon) for table in there]
    means = {
        name: {method: np.mean([values[name][method] for values in each], 0) for method in methods}
        for name, methods in each[0].items()
    }
    return means, groups_of(there[0][there[0]["method"] == first])


def _entry(metrics: Sequence[Metric], values: Values, shared: SharedGroups | None, reference: str | None) -> dict[str, Any]:
    primary = metrics[0]
    methods: dict[str, dict[str, Any]] = {}
    for method in values[primary.name]:
        methods[method] = {one.name: statistics(values[one.name][method], one.larger_is_better, shared) for one in metrics}
        if reference is not None and method != reference:
            methods[method]["harmed"] = _harmed(primary, values[primary.name][method], values[primary.name][reference])
    differences = []
    for one, other in combinations(values[primary.name], 2):
        with np.errstate(invalid="ignore"):
            minus = values[primary.name][one] - values[primary.name][other]
        differences.append({"of": one, "against": other, primary.name: paired(minus, shared)})
    return {"methods": methods, "differences": differences}


def _harmed(metric: Metric, values: npt.NDArray[np.float64], of_reference: npt.NDArray[np.float64]) -> float:
    """The share of tasks in which a method is worse than the reference; NaN counts as worse."""
    with np.errstate(invalid="ignore"):
        worse = of_reference - values if metric.larger_is_better else values - of_reference
        harmed: npt.NDArray[np.bool_] = ~(worse <= _SAME * np.maximum(1, np.abs(of_reference)))
    return float(harmed.mean())
