"""Figures of a table: how large its tasks are and how their targets differ, and what methods predict for a few tasks."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaopt_core.distributions.batch import Prediction, Rows, TaskBatch
from metaopt_core.distributions.preparing import Preparation

Integers = npt.NDArray[np.int64]
_TASKS_SHOWN = 4
_TASKS_IN_BOXES = 40
_COLORS = {"train": "tab:blue", "validation": "tab:orange", "test": "tab:green"}


def overview(sizes: Mapping[str, Integers], preparation: Preparation, labels: Sequence[str], rows: Rows, own: bool) -> Figure:
    """Rows of a task, by split; the target within tasks, and between them.

    sizes: rows of each cell [tasks, labels], by split. rows: of the meta-train tasks. own: whether labels are a task's own.
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    of_tasks = {name: of_cells.sum(1) for name, of_cells in sizes.items()}
    bins = np.histogram_bin_edges(np.concatenate(list(of_tasks.values())), bins=20)
    left.hist(
        list(of_tasks.values()), bins=list(bins), stacked=True, color=[_COLORS[name] for name in sizes],
        label=[f"{len(of)} {name}" for name, of in sizes.items()],
    )  # fmt: skip
    left.set(title="Rows of a task", xlabel="rows", ylabel="tasks")
    left.legend(fontsize=8)
    if not labels:
        _boxes(right, preparation, rows)
    elif own:
        right.hist((sizes["train"] > 0).sum(1), bins=20, color=_COLORS["train"])
        right.set(title="Classes of a meta-train task", xlabel="classes", ylabel="tasks")
    else:
        shares = sizes["train"] / sizes["train"].sum(1, keepdims=True)
        right.boxplot([shares[:, label] for label in range(len(labels))], tick_labels=list(labels), showfliers=False)
        right.set(title="Labels in the meta-train tasks", ylabel="share of a task's rows")
    return figure


def _boxes(axes: Axes, preparation: Preparation, rows: Rows) -> None:
    """The first target of some meta-train tasks, ordered by their medians."""
    name, mean, scale = preparation.targets[0], preparation.means[0], preparation.scales[0]
    values = [mean + scale * rows.y[rows.task == task, 0].numpy() for task in rows.task.unique()]
    ordered = sorted(values, key=lambda one: float(np.median(one)))
    shown = [ordered[index] for index in np.linspace(0, len(ordered) - 1, min(_TASKS_IN_BOXES, len(ordered))).astype(int)]
    axes.boxplot(shown, showfliers=False, medianprops={"color": _COLORS["train"]})
    axes.set(title=f"{name} in {len(shown)} meta-train tasks", xlabel="tasks, by their medians", ylabel=name, xticks=[])


def examples(preparation: Preparation, labels: Sequence[str], tasks: TaskBatch, predictions: Sequence[Prediction]) -> Figure:
    """A few tasks, a row for each method: predictions before and after adaptation against what is true."""
    count = min(_TASKS_SHOWN, len(tasks))
    figure = Figure(figsize=(2.9 * count, 2.7 * max(1, len(predictions))), layout="constrained")
    grid = figure.subplots(max(1, len(predictions)), count, squeeze=False)
    for row, made in zip(grid, predictions, strict=False):
        for index, axes in enumerate(row):
            there = slice(None) if tasks.query_weight is None else tasks.query_weight[index] > 0
            if tasks.classes is not None:
                _confusion(axes, labels, tasks.query_y[index][there], made.after[index][there])
                continue
            origin = 0 if tasks.origin is None else tasks.origin[index]
            mean, scale = torch.tensor(preparation.means), torch.tensor(preparation.scales)

            def in_units(values: torch.Tensor) -> npt.NDArray[np.float32]:
                return (mean + scale * (values + origin))[:, 0].numpy()  # noqa: B023 - called in this round

            true = in_units(tasks.query_y[index][there])
            axes.plot(true, in_units(made.before[index][there]), ".", color="lightgray", label="before")
            axes.plot(true, in_units(made.after[index][there]), ".", color=made.color, label=f"after {made.steps} steps")
            ends = [true.min(), true.max()]
            axes.plot(ends, ends, color="black", linewidth=0.8)
            axes.set_xlabel(preparation.targets[0], fontsize=8)
        row[0].set_ylabel(made.label)
    if predictions and tasks.classes is None:
        grid[0, 0].legend(fontsize=7)
    return figure


def _confusion(axes: Axes, labels: Sequence[str], true: torch.Tensor, outputs: torch.Tensor) -> None:
    """How often each class was predicted for each, darker where more often."""
    ways = outputs.shape[-1]
    counts = torch.zeros(ways, ways)
    counts.index_put_((true, outputs.argmax(-1)), torch.ones(len(true)), accumulate=True)
    axes.imshow(counts.numpy(), cmap="Blues", vmin=0)
    names = list(labels) if len(labels) == ways else [str(label) for label in range(ways)]
    axes.set_xticks(range(ways), names, fontsize=7)
    axes.set_yticks(range(ways), names, fontsize=7)
    axes.set_xlabel("predicted", fontsize=8)
