"""What is worth knowing of a table before anything is trained: its numbers, and what may be wrong with it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from metaopt_core.distributions.batch import Rows
from metaopt_core.distributions.preparing import Numeric, Preparation

_NAMED = 5  # tasks that a warning names
_FLAT = 0.05  # of the spread that tasks have in the middle: less hardly varies


def facts(preparation: Preparation, told: Mapping[str, Any], labels: Sequence[str], rows: Rows) -> dict[str, str]:
    """Of the rows, features and targets, in words. rows: of the meta-train tasks."""
    columns = len(preparation.columns)
    found = {
        "rows": f"{told['rows']:,}, of which {told['rows_without_target']:,} have no target and are left out",
        "features": f"{told['features']:,} of {columns:,} column{'' if columns == 1 else 's'}",
        "columns left out": "; ".join(f"{name} ({why})" for name, why in told["columns_left_out"].items()) or "none",
    }
    if labels:
        counts = np.bincount(rows.y.numpy(), minlength=len(labels))
        shares = [f"{label} {count / counts.sum():.0%}" for label, count in zip(labels, counts, strict=True)]
        return found | {"labels": ", ".join(shares[:20]) if len(labels) <= 20 else f"{len(labels):,} of all tasks"}
    for name, mean, scale, within, between in zip(
        preparation.targets, preparation.means, preparation.scales, preparation.within, preparation.between, strict=True
    ):
        found[f"target {name}"] = (
            f"mean {mean:.4g}; standard deviation {scale * between**0.5:.3g} between tasks' means, {scale * within**0.5:.3g} "
            "within tasks"
        )
    return found


def warnings(
    preparation: Preparation, told: Mapping[str, Any], labels: Sequence[str], rows: Rows, names: Sequence[str]
) -> list[str]:
    """What may be wrong with a table. rows, names: of the meta-train tasks."""
    return [*told["warnings"], *_repeated(rows, names), *_flat(labels, rows, names), *_numbered(preparation, rows)]


def _repeated(rows: Rows, names: Sequence[str]) -> Iterator[str]:
    """Rows that a task has more than once."""
    y = rows.y.numpy().reshape(len(rows.y), -1).astype(np.float32)
    whole = np.ascontiguousarray(np.concatenate([rows.task.numpy()[:, None].astype(np.float32), rows.x.numpy(), y], 1))
    _, first, counts = np.unique(whole.view(f"V{whole.itemsize * whole.shape[1]}").ravel(), return_index=True, return_counts=True)
    if (twice := counts > 1).any():
        tasks = sorted({int(task) for task in rows.task.numpy()[first[twice]]})
        yield (
            f"{int((counts[twice] - 1).sum()):,} rows of {_named(tasks, names)} are repeated within their task: the same row may "
            "be in the support set and among the queries"
        )


def _flat(labels: Sequence[str], rows: Rows, names: Sequence[str]) -> Iterator[str]:
    """Tasks whose target hardly varies."""
    if labels:
        return
    task, y = rows.task.numpy(), rows.y.numpy()[:, 0]
    spread = np.array([y[task == number].std() for number in np.unique(task)])
    flat = [int(number) for number in np.unique(task)[spread < _FLAT * np.median(spread)]]
    if flat:
        yield f"the target hardly varies in {_named(flat, names)}: there is little to predict"


def _numbered(preparation: Preparation, rows: Rows) -> Iterator[str]:
    """Numeric columns that look like the number of a row."""
    places = preparation.features_of
    for column in preparation.numeric:
        values = _of(column, rows.x.numpy()[:, places[column.column][0]].astype(np.float64))
        whole = np.abs(values - values.round()).max() < 0.01
        if len(values) > 100 and whole and len(np.unique(values.round())) == len(values):
            yield f"{column.column} is another whole number in each row, as a row's number is: drop it if it is one"


def _of(column: Numeric, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values * column.scale + column.mean


def _named(tasks: Sequence[int], names: Sequence[str]) -> str:
    shown = ", ".join(names[task] for task in tasks[:_NAMED])
    more = f" and {len(tasks) - _NAMED:,} more" if len(tasks) > _NAMED else ""
    return f"{len(tasks):,} meta-train task{'' if len(tasks) == 1 else 's'} ({shown}{more})"
