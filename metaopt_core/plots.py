"""Figures, as matplotlib objects of their own: no global state, so nothing to close and no window ever opens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.learner import Learner
from metaopt_core.models import Params

COLORS = {"maml": "tab:blue", "pretrained": "tab:orange", "random": "tab:gray"}
_TASKS_SHOWN = 4
_CHARACTERS_SHOWN = 8  # of a split
_DRAWINGS_SHOWN = 10  # of a character
_GAP = 3  # pixels between pictures


def save(figure: Figure, path: Path) -> None:
    """Write a PNG whose bytes depend on the figure alone."""
    figure.savefig(path, dpi=110, metadata={"Software": None})


def tasks_of_sinusoid(tasks: TaskBatch) -> Figure:
    """A few tasks of p(T): the function on the query grid and the support points."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for index in range(min(2 * _TASKS_SHOWN, len(tasks))):
        (line,) = axes.plot(*_points(tasks.query_x[index], tasks.query_y[index]), linewidth=1)
        axes.plot(*_points(tasks.support_x[index], tasks.support_y[index]), "o", color=line.get_color(), markersize=4)
    axes.set(title="Meta-test tasks: the function and the support points", xlabel="x", ylabel="y")
    return figure


def contact_sheet(pixels: npt.NDArray[np.uint8], splits: pd.DataFrame) -> Figure:
    """Some characters of each split, a row each with several drawings.

    pixels: [characters, drawings, side, side], ink is 255. splits: a character a row, with columns alphabet, character and split.
    """
    names = [name for name in ("train", "validation", "test") if (splits["split"] == name).any()]
    figure = Figure(figsize=(4.4 * len(names), 3.3), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        members = np.flatnonzero(splits["split"] == name)
        shown = members[
            np.linspace(0, len(members) - 1, min(_CHARACTERS_SHOWN, len(members))).astype(int)
        ]  # spread over the alphabets
        pictures = pixels[shown, :_DRAWINGS_SHOWN]
        _, columns, side, _ = pictures.shape
        pitch = side + _GAP
        padded = np.pad(pictures, ((0, 0), (0, 0), (0, _GAP), (0, _GAP)))
        axes.imshow(255 - padded.swapaxes(1, 2).reshape(-1, columns * pitch), cmap="gray", vmin=0, vmax=255, interpolation="none")
        chosen = splits.iloc[shown]
        labels = [
            f"{alphabet.replace('_', ' ')}\n{character}"
            for alphabet, character in zip(chosen["alphabet"], chosen["character"], strict=True)
        ]
        axes.set_yticks(np.arange(len(shown)) * pitch + side / 2, labels, fontsize=6.5)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.set_title(f"{name}: {len(members)} characters", fontsize=10)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def adaptation(summary: Mapping[str, Any]) -> Figure:
    """The mean over meta-test tasks after each number of steps, with its 95 % interval: accuracy where there is one, or error."""
    key, label = ("accuracy", "accuracy") if summary["ways"] else ("loss", "mean squared error")
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for method, result in summary["methods"].items():
        points = [point for point in result["steps"] if point[key]["mean"] is not None]
        steps = [point["step"] for point in points]
        mean = [point[key]["mean"] for point in points]
        half = [point[key]["ci95"] or 0.0 for point in points]
        low, high = [m - h for m, h in zip(mean, half, strict=True)], [m + h for m, h in zip(mean, half, strict=True)]
        axes.plot(steps, mean, "o-", color=COLORS[method], label=result["label"], markersize=3.5)
        axes.fill_between(steps, low, high, color=COLORS[method], alpha=0.2, linewidth=0)
    shape = f"{summary['ways']}-way {summary['shots']}-shot" if summary["ways"] else f"K = {summary['shots']}"
    normalization = f", {summary['normalization']}" if summary["normalization"] else ""
    axes.set(
        title=f"Adaptation to {summary['tasks']} new tasks ({shape}{normalization}), mean and 95 % interval",
        xlabel="adaptation steps",
        ylabel=label,
    )
    axes.title.set_fontsize(9.5)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def fits(learner: Learner, compared: Mapping[str, Params], tasks: TaskBatch, steps: int) -> Figure:
    """Regression: a few tasks, each method's function before and after adaptation."""
    tasks = tasks[:_TASKS_SHOWN]
    figure = Figure(figsize=(3.2 * _TASKS_SHOWN, 2.6 * len(compared)), layout="constrained")
    grid = figure.subplots(len(compared), len(tasks), sharex=True, sharey="col", squeeze=False)
    for row, (method, params) in zip(grid, compared.items(), strict=True):
        before, after = (learner.predict(params, tasks.support_x, tasks.support_y, tasks.query_x, count) for count in (0, steps))
        for index, axes in enumerate(row):
            x = tasks.query_x[index]
            axes.plot(*_points(x, tasks.query_y[index]), color="black", linewidth=1, label="task")
            axes.plot(*_points(x, before[index]), ":", color=COLORS[method], label="before")
            axes.plot(*_points(x, after[index]), color=COLORS[method], label=f"after {steps} steps")
            axes.plot(*_points(tasks.support_x[index], tasks.support_y[index]), "k^", markersize=5, label="support")
        row[0].set_ylabel(method)
        row[0].legend(fontsize=7)
    return figure


def pictures(learner: Learner, params: Params, tasks: TaskBatch, steps: int) -> Figure:
    """Classification: a few tasks, a row each: the support pictures, then queries with the label that is predicted for them."""
    tasks = tasks[:_TASKS_SHOWN]
    ways = int(tasks.support_y.max()) + 1
    shown = min(ways, 10)
    logits = learner.predict(params, tasks.support_x, tasks.support_y, tasks.query_x, steps)
    predicted = logits.argmax(-1)
    figure = Figure(figsize=(0.85 * 2 * shown + 0.6, 1.15 * len(tasks) + 0.5), layout="constrained")
    grid = figure.subplots(len(tasks), 2 * shown, squeeze=False)
    for index, row in enumerate(grid):
        for way in range(shown):
            support = int(torch.nonzero(tasks.support_y[index] == way)[0])
            query = int(torch.nonzero(tasks.query_y[index] == way)[0])
            _picture(row[way], tasks.support_x[index, support, 0], f"class {way}", "black")
            answer = int(predicted[index, query])
            _picture(
                row[shown + way], tasks.query_x[index, query, 0], f"{way} → {answer}", "tab:green" if answer == way else "tab:red"
            )
    figure.suptitle(f"Support pictures (left) and queries after {steps} steps: class → prediction (right)", fontsize=10)
    return figure


def _points(x: Tensor, y: Tensor) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """One task's inputs and targets, [examples, 1] each, as matplotlib takes them."""
    return x[:, 0].numpy(), y[:, 0].numpy()


def _picture(axes: Axes, pixels: Tensor, title: str, color: str) -> None:
    axes.imshow(1 - pixels.numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=8, color=color)
    for spine in axes.spines.values():
        spine.set_color(color)
