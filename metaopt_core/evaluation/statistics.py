"""Statistics over tasks: a mean with its interval, quantiles, the worst tasks, paired differences and which of them survive.

No task is left out for a bad result.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from metaopt_core.evaluation.shared_groups import SharedGroups
from metaopt_core.spec.evaluate import IN_DISTRIBUTION

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = 0.95
WORST_SHARE = 0.1

_QUANTILES = {"q05": 0.05, "q25": 0.25, "q75": 0.75, "q95": 0.95}

Array = npt.NDArray[np.float64]


def statistics(values: Array, larger_is_better: bool = False, shared: SharedGroups | None = None) -> dict[str, float | None]:
    """Mean, half the width of its 95 % interval, median, quantiles and the mean of the 10 % worst; null where not finite.

    values: [tasks]. shared: the groups that the tasks share, if they do.
    """
    bad = -np.inf if larger_is_better else np.inf  # NaN counts as worse than any number
    ordered = np.where(np.isnan(values), bad, values)
    found = _mean(values, shared) | {"median": np.quantile(ordered, 0.5, method="nearest")}
    found |= {name: np.quantile(ordered, q, method="nearest") for name, q in _QUANTILES.items()}
    worst = int(np.ceil(WORST_SHARE * len(values)))
    found["worst"] = np.sort(ordered)[:worst].mean() if larger_is_better else np.sort(ordered)[-worst:].mean()
    return _finite(found)


def mean(values: Array, shared: SharedGroups | None = None) -> dict[str, float | None]:
    """The mean over tasks and half the width of its 95 % interval; null where not finite. values: [tasks]."""
    return _finite(_mean(values, shared))


def paired(values: Array, shared: SharedGroups | None = None) -> dict[str, float | None]:
    """The same for differences task by task, with `p`, the probability of a mean at least as far from 0 by chance."""
    found = _mean(values, shared)
    error, freedom = _standard_error(values, shared), _degrees_of_freedom(values, shared)
    with np.errstate(divide="ignore", invalid="ignore"):
        found["p"] = float(2 * stats.t.sf(np.abs(found["mean"]) / error, freedom)) if found["mean"] else 1.0
    return _finite(found)


def survivors(p_values: Sequence[float | None]) -> list[bool]:
    """Which of several comparisons differ from 0, with at most one chance in 20 that any of those called so does not.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979. A comparison without
    a p-value can't be tested, and is not counted.
    """
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    found = [False] * len(p_values)
    for rank, (p, place) in enumerate(tested):
        if p > (1 - CONFIDENCE) / (len(tested) - rank):
            break
        found[place] = True
    return found


def _mean(values: Array, shared: SharedGroups | None) -> dict[str, float]:
    with np.errstate(invalid="ignore"):
        half = _standard_error(values, shared) * stats.t.ppf(0.5 + CONFIDENCE / 2, _degrees_of_freedom(values, shared))
        return {"mean": float(values.mean()), "ci95": float(half)}


def _standard_error(values: Array, shared: SharedGroups | None) -> float:
    """The standard error of the mean; NaN for a single task."""
    if len(values) < 2:
        return np.nan
    return shared.standard_error(values) if shared else float(stats.sem(values))


def _degrees_of_freedom(values: Array, shared: SharedGroups | None) -> int:
    return (min(len(values), shared.count) if shared else len(values)) - 1


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def note_survivors(found: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]]) -> None:
    """Note at the differences whether they survive a correction for their number: each that there is on the tasks as trained for,
    and the model's, which are all that reports tell, on the variants together.
    """
    of_variants = [
        pair for variant in variants.values() for pair in variant["differences"] if found["model"] in (pair["of"], pair["against"])
    ]
    for name in (name for name, read in found["metrics"].items() if not read["pooled"]):
        for pairs in (found["differences"], of_variants):
            survive = survivors([pair[name]["p"] for pair in pairs])
            for pair, survives in zip(pairs, survive, strict=True):
                pair[name]["survives"] = survives


# --- from a table of tasks ----------------------------------------------------------------------------------------------


def one_a_task(table: "pd.DataFrame", shots: int | None = None) -> "pd.DataFrame":
    """One row for each variant, method and task, with a number of support examples, or with the largest that the variant has.

    The numbers of a task that was evaluated several times are averaged, so that it counts once; one that is not finite makes its
    mean so. Lists (of its queries, say) are concatenated.
    """
    if "shots" not in table:
        return table
    wanted = table.groupby("variant")["shots"].transform("max") if shots is None else shots
    rows = table[table["shots"] == wanted].drop(columns="shots")
    if not rows["repeat"].any():
        return rows.drop(columns="repeat").reset_index(drop=True)
    rows = rows.drop(columns="repeat")
    place = rows.groupby(_ROW, sort=False).ngroup().to_numpy()
    found = rows.drop_duplicates(_ROW).reset_index(drop=True)
    each = np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])
    for name in rows.columns.difference([*_ROW, *_SAME_IN_REPEATS]):
        values = rows[name].to_numpy()
        if values.dtype == object:
            found[name] = [_concatenated(values[places]) for places in each]
        else:
            with np.errstate(invalid="ignore"):
                found[name] = np.bincount(place, values.astype(np.float64)) / np.bincount(place)
    return found


_ROW = ["variant", "method", "task"]
_SAME_IN_REPEATS = ["inner_lr", "groups"]


def _concatenated(lists: npt.NDArray[Any]) -> Any:
    return None if lists[0] is None else np.concatenate(list(lists))


def groups_of(table: "pd.DataFrame") -> SharedGroups | None:
    """The groups that tasks share, from a table with one row for each task: none if tasks have no groups, or share none."""
    if "groups" not in table or table["groups"].isna().any():
        return None
    return SharedGroups.of(np.array(table["groups"].tolist(), np.int64))


def of_method(table: "pd.DataFrame", column: str, method: str, larger_is_better: bool = False) -> dict[str, float | None]:
    """Statistics of one column over the unshifted tasks, for one method."""
    rows = one_a_task(_of_method(table, method))
    return statistics(rows[column].to_numpy(np.float64), larger_is_better, groups_of(rows))


def between(
    before: "pd.DataFrame", column: str, method: str, after: "pd.DataFrame", column_after: str, method_after: str
) -> dict[str, float | None]:
    """`paired`, of what one method does `after` minus what another did `before`: two tables of the same tasks."""
    first, second = one_a_task(_of_method(before, method)), one_a_task(_of_method(after, method_after))
    return paired(second[column_after].to_numpy(np.float64) - first[column].to_numpy(np.float64), groups_of(second))


def _of_method(table: "pd.DataFrame", method: str) -> "pd.DataFrame":
    return table[(table["method"] == method) & (table["variant"] == IN_DISTRIBUTION)].sort_values("task")
