"""Statistics over tasks: a mean with its interval, quantiles, the worst tasks. No task is left out because its number is bad."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import stats

from metaopt_core.spec.evaluate import IN_DISTRIBUTION

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = 0.95
WORST_SHARE = 0.1

_QUANTILES = {"q05": 0.05, "q25": 0.25, "q75": 0.75, "q95": 0.95}

Array = npt.NDArray[np.float64]


def statistics(values: Array, larger_is_better: bool = False) -> dict[str, float | None]:
    """Mean, half the width of its 95 % interval, median, quantiles and the mean of the 10 % worst; null where not finite.

    values: [tasks].
    """
    ordered = np.where(
        np.isnan(values), -np.inf if larger_is_better else np.inf, values
    )  # not a number is worse than any that is one
    found = _mean(values) | {"median": np.quantile(ordered, 0.5, method="nearest")}
    found |= {name: np.quantile(ordered, q, method="nearest") for name, q in _QUANTILES.items()}
    worst = int(np.ceil(WORST_SHARE * len(values)))
    found["worst"] = np.sort(ordered)[:worst].mean() if larger_is_better else np.sort(ordered)[-worst:].mean()
    return finite(found)


def mean(values: Array) -> dict[str, float | None]:
    """The mean over tasks and half the width of its 95 % interval (Student's t); null where not finite. values: [tasks]."""
    return finite(_mean(values))


def _mean(values: Array) -> dict[str, float]:
    with np.errstate(invalid="ignore"):
        half = stats.sem(values) * stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1) if len(values) > 1 else np.nan
        return {"mean": values.mean(), "ci95": half}


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def of_method(table: "pd.DataFrame", column: str, method: str, larger_is_better: bool = False) -> dict[str, float | None]:
    """Statistics of one column over the tasks that are not shifted, for one method."""
    return statistics(_by_task(table, column, method), larger_is_better)


def paired(
    before: "pd.DataFrame", column: str, method: str, after: "pd.DataFrame", column_after: str, method_after: str
) -> dict[str, float | None]:
    """Statistics over the tasks of what one method does `after` minus what another did `before`: two tables of the same tasks."""
    return statistics(_by_task(after, column_after, method_after) - _by_task(before, column, method))


def _by_task(table: "pd.DataFrame", column: str, method: str) -> Array:
    rows = table[(table["method"] == method) & (table["variant"] == IN_DISTRIBUTION)]
    return rows.sort_values("task")[column].to_numpy(np.float64)
