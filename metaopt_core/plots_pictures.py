"""The contact sheet of a set of pictures: what a split is made of, at a glance."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

_CHARACTERS = 8  # of a split
_DRAWINGS = 10  # of a character
_GAP = 3  # pixels between pictures


def contact_sheet(path: Path, pixels: npt.NDArray[np.uint8], splits: pd.DataFrame) -> None:
    """Write a PNG with some characters of each split, a row each with several drawings.

    pixels: [characters, drawings, side, side], ink is 255. splits: a character a row, with columns alphabet, character and split.
    """
    names = [name for name in ("train", "validation", "test") if (splits["split"] == name).any()]
    figure = Figure(figsize=(4.4 * len(names), 3.3), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        members = np.flatnonzero(splits["split"] == name)
        shown = members[np.linspace(0, len(members) - 1, min(_CHARACTERS, len(members))).astype(int)]  # spread over the alphabets
        pictures = pixels[shown, :_DRAWINGS]
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
    figure.savefig(path, dpi=150, metadata={"Software": None})  # bytes that depend on the figure alone
