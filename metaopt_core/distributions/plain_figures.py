"""Figures of tasks of which nothing is known but their examples: by target against the first input, by predicted against true."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from metaopt_core.distributions.batch import Prediction, TaskBatch

TASKS_SHOWN = 4


def overview(tasks: TaskBatch) -> Figure:
    """A few tasks: the first target, or the label, of each query against the first number of its input."""
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    for index, axes in enumerate(figure.subplots(1, TASKS_SHOWN, sharex=True, sharey=True)):
        if index >= len(tasks):
            axes.set_visible(False)
            continue
        for x, y, marker, label in (
            (tasks.query_x, tasks.query_y, ".", "query"),
            (tasks.support_x, tasks.support_y, "^", "support"),
        ):
            first = [value[index].reshape(value.shape[1], -1)[:, 0].numpy() for value in (x, y)]
            axes.plot(*first, marker, label=label)
        axes.set(title=f"test task {index}", xlabel="first input")
    figure.axes[0].set_ylabel("label" if tasks.query_y.dim() == 2 else "first target")
    figure.axes[0].legend(fontsize=7)
    return figure


def examples(tasks: TaskBatch, predictions: Sequence[Prediction]) -> Figure:
    """A few tasks, a row for each method: what is predicted for queries, before and after adaptation, against what they are."""
    tasks = tasks[:TASKS_SHOWN]
    figure = Figure(figsize=(3.2 * len(tasks), 2.6 * len(predictions)), layout="constrained")
    grid = figure.subplots(len(predictions), len(tasks), sharex="col", sharey="col", squeeze=False)
    labels = tasks.query_y.dim() == 2
    for row, made in zip(grid, predictions, strict=True):
        for index, axes in enumerate(row):
            if labels:
                ways = made.after.shape[-1]
                cells = np.zeros((ways, ways))
                np.add.at(cells, (tasks.query_y[index].numpy(), made.after[index].argmax(-1).numpy()), 1)
                axes.imshow(cells, cmap="Blues", vmin=0)
                axes.set(xlabel="predicted", ylabel="true")
                continue
            true = tasks.query_y[index, :, 0].numpy()
            axes.plot(true, made.before[index, :, 0].numpy(), ".", color="lightgray", label="before")
            steps = f"{made.steps} step{'' if made.steps == 1 else 's'}"
            axes.plot(true, made.after[index, :, 0].numpy(), ".", color=made.color, label=f"after {steps}")
            axes.axline((float(true.mean()), float(true.mean())), slope=1, color="black", linewidth=0.8)
            axes.set(xlabel="true", ylabel="predicted")
            axes.legend(fontsize=7)
        row[0].set_title(made.label, fontsize=9)
    return figure
