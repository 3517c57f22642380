"""Figures of classes of pictures, and of tasks made of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from metaopt_core.distributions.batch import Prediction, TaskBatch

_TASKS_SHOWN = 4
_CLASSES_SHOWN = 8  # of a split
_PICTURES_SHOWN = 8  # of a class
_GAP = 3  # pixels between pictures
_LONGEST = 28  # characters of a class's name

Integers = npt.NDArray[np.int64]


def spread(names: Sequence[str], first: Integers, size: Integers, rows: Integers) -> list[tuple[str, Integers]]:
    """A few classes from all over a split, each with the rows of its first pictures."""
    chosen = np.unique(np.linspace(0, len(names) - 1, min(_CLASSES_SHOWN, len(names))).astype(int))
    return [(names[index], rows[first[index] :][: min(size[index], _PICTURES_SHOWN)]) for index in chosen]


def overview(
    pictures: Mapping[Any, Sequence[tuple[str, Tensor]]], counts: Mapping[Any, tuple[int, int]], inverted: bool = False
) -> Figure:
    """Some classes of each split, a row each with several pictures (uint8 [pictures, channels, side, side]).

    counts: classes and pictures of each split.
    """
    figure = Figure(figsize=(4.4 * len(pictures), 3.4), layout="constrained")
    for axes, (name, rows) in zip(figure.subplots(1, len(pictures), squeeze=False)[0], pictures.items(), strict=True):
        side = rows[0][1].shape[-1]
        pitch = side + _GAP
        canvas = np.full((len(rows) * pitch, _PICTURES_SHOWN * pitch, 3), 255, dtype=np.uint8)
        for row, (_, shown) in enumerate(rows):
            for column, picture in enumerate(shown.cpu().numpy()):
                upright = picture.transpose(1, 2, 0)
                place = np.s_[row * pitch : row * pitch + side, column * pitch : column * pitch + side]
                canvas[place] = 255 - upright if inverted else upright
        axes.imshow(canvas, interpolation="none")
        labels = [label if len(label) <= _LONGEST else f"…{label[1 - _LONGEST :]}" for label, _ in rows]
        axes.set_yticks(np.arange(len(rows)) * pitch + side / 2, labels, fontsize=6.5)
        axes.set_xticks([])
        axes.tick_params(length=0)
        classes, number = counts[name]
        axes.set_title(f"{name}: {classes:,} classes, {number:,} pictures", fontsize=9.5)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def examples(tasks: TaskBatch, made: Prediction, inverted: bool = False) -> Figure:
    """A few tasks, a row each: the support pictures, then queries with the label that is predicted for them.

    inverted: whether 1 is dark.
    """
    tasks = tasks[:_TASKS_SHOWN]
    ways = int(tasks.support_y.max()) + 1
    shown = min(ways, 10)
    predicted = made.after.argmax(-1)
    steps = f"{made.steps} step{'' if made.steps == 1 else 's'}"
    figure = Figure(figsize=(0.85 * 2 * shown + 0.6, 1.15 * len(tasks) + 0.5), layout="constrained")
    grid = figure.subplots(len(tasks), 2 * shown, squeeze=False)
    for index, row in enumerate(grid):
        for way in range(shown):
            support = int(torch.nonzero(tasks.support_y[index] == way)[0])
            query = int(torch.nonzero(tasks.query_y[index] == way)[0])
            answer = int(predicted[index, query])
            color = "tab:green" if answer == way else "tab:red"
            _picture(row[way], tasks.support_x[index, support], f"class {way}", "black", inverted)
            _picture(row[shown + way], tasks.query_x[index, query], f"{way} → {answer}", color, inverted)
    figure.suptitle(f"Support pictures (left) and queries after {steps}: class → prediction (right)", fontsize=10)
    return figure


def _picture(axes: Axes, pixels: Tensor, title: str, color: str, inverted: bool) -> None:
    upright = pixels.movedim(0, -1).numpy()
    axes.imshow(1 - upright if inverted else upright, cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=8, color=color)
    for spine in axes.spines.values():
        spine.set_color(color)
