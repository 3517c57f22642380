"""Figures of tasks that are functions of one number."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from torch import Tensor

from metaopt_core.distributions.batch import Prediction, TaskBatch

_TASKS_SHOWN = 4
OVERVIEW_TASKS = 2 * _TASKS_SHOWN


def overview(tasks: TaskBatch) -> Figure:
    """A few tasks of p(T): the function on the query grid and the support points."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for index in range(min(OVERVIEW_TASKS, len(tasks))):
        (line,) = axes.plot(*_points(tasks.query_x[index], tasks.query_y[index]), linewidth=1)
        axes.plot(*_points(tasks.support_x[index], tasks.support_y[index]), "o", color=line.get_color(), markersize=4)
    axes.set(title="Meta-test tasks: the function and the support points", xlabel="x", ylabel="y")
    return figure


def examples(tasks: TaskBatch, predictions: Sequence[Prediction]) -> Figure:
    """A few tasks, one row for each method: the function, and the predictions before and after adaptation."""
    tasks = tasks[:_TASKS_SHOWN]
    figure = Figure(figsize=(3.2 * len(tasks), 2.6 * len(predictions)), layout="constrained")
    grid = figure.subplots(len(predictions), len(tasks), sharex=True, sharey="col", squeeze=False)
    for row, made in zip(grid, predictions, strict=True):
        for index, axes in enumerate(row):
            x = tasks.query_x[index]
            axes.plot(*_points(x, tasks.query_y[index]), color="black", linewidth=1, label="task")
            axes.plot(*_points(x, made.before[index]), ":", color=made.color, label="before")
            steps = f"{made.steps} step{'' if made.steps == 1 else 's'}"
            axes.plot(*_points(x, made.after[index]), color=made.color, label=f"after {steps}")
            axes.plot(*_points(tasks.support_x[index], tasks.support_y[index]), "k^", markersize=5, label="support")
        row[0].set_ylabel(made.label)
    grid[0, 0].legend(fontsize=7)
    return figure


def _points(x: Tensor, y: Tensor) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """One task's inputs and targets, [examples, 1] each, as matplotlib takes them."""
    return x[:, 0].numpy(), y[:, 0].numpy()
