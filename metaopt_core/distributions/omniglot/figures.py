"""The figure of Omniglot's characters; that of tasks is the one of all pictures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

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
