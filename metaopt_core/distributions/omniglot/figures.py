"""Figures of Omniglot's characters and of tasks made of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from metaopt_core.distributions.batch import Prediction, TaskBatch

_TASKS_SHOWN = 4
_CHARACTERS_SHOWN = 8  # of a split
_DRAWINGS_SHOWN = 10  # of a character
_GAP = 3  # pixels between pictures


def overview(rotations: int, pixels: Mapping[Any, Tensor], splits: pd.DataFrame) -> Figure:
    """Some characters of each split, a row each with several drawings.

    pixels: split → [classes, drawings, side, side], ink is 255. splits: a character a row, with columns alphabet, character and
    split.
    """
    names = [name for name in ("train", "validation", "test", "new_alphabets") if (splits["split"] == name).any()]
    figure = Figure(figsize=(4.4 * len(names), 3.3), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        members = np.flatnonzero(splits["split"] == name)
        chosen_of_split = np.linspace(0, len(members) - 1, min(_CHARACTERS_SHOWN, len(members))).astype(
            int
        )  # spread over alphabets
        shown = members[chosen_of_split]
        pictures = pixels[name].numpy()[chosen_of_split * rotations, :_DRAWINGS_SHOWN]
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
        alphabets = splits["alphabet"].iloc[members].nunique()
        axes.set_title(f"{name.replace('_', ' ')}: {len(members)} characters, {alphabets} alphabets", fontsize=9.5)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def examples(tasks: TaskBatch, made: Prediction) -> Figure:
    """A few tasks, a row each: the support pictures, then queries with the label that is predicted for them."""
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
            _picture(row[way], tasks.support_x[index, support, 0], f"class {way}", "black")
            answer = int(predicted[index, query])
            _picture(
                row[shown + way], tasks.query_x[index, query, 0], f"{way} → {answer}", "tab:green" if answer == way else "tab:red"
            )
    figure.suptitle(f"Support pictures (left) and queries after {steps}: class → prediction (right)", fontsize=10)
    return figure


def _picture(axes: Axes, pixels: Tensor, title: str, color: str) -> None:
    axes.imshow(1 - pixels.numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=8, color=color)
    for spine in axes.spines.values():
        spine.set_color(color)
