"""How pictures of training tasks are varied. Every picture's change is a function of (seed, index of its task, its place in it)."""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

NUMBERS = 6
"""Uniform numbers that a picture's change is made from: flip, two of crop, brightness, contrast, saturation."""

_MOVED = 10  # parts of a side, of which one is the furthest that a picture is moved
_COLOR = 0.4  # brightness, contrast and saturation are between 1 less and 1 more than this


def augmented(pictures: Tensor, numbers: npt.NDArray[np.float64], kinds: Collection[str]) -> Tensor:
    """pictures [N, channels, side, side] in [0, 1] and uniform numbers [N, NUMBERS] → such pictures, varied."""
    chosen = torch.from_numpy(numbers).to(pictures.device, pictures.dtype)
    if "flip" in kinds:
        pictures = torch.where(chosen[:, 0, None, None, None] < 0.5, pictures.flip(-1), pictures)
    if "crop" in kinds:
        pictures = _moved(pictures, chosen[:, 1:3])
    if "color" in kinds:
        pictures = _colored(pictures, 1 + _COLOR * (2 * chosen[:, 3:] - 1))
    return pictures


def _moved(pictures: Tensor, numbers: Tensor) -> Tensor:
    """Moved by whole pixels; what comes in at an edge is mirrored there."""
    count, _, height, width = pictures.shape
    furthest = max(1, height // _MOVED)
    padded = F.pad(pictures, (furthest,) * 4, mode="reflect")
    down, right = (numbers * (2 * furthest + 1)).long().unbind(1)
    rows = (down[:, None] + torch.arange(height, device=pictures.device))[:, None, :, None]
    columns = (right[:, None] + torch.arange(width, device=pictures.device))[:, None, None, :]
    places = torch.arange(count, device=pictures.device)[:, None, None, None]
    channels = torch.arange(pictures.shape[1], device=pictures.device)[None, :, None, None]
    return padded[places, channels, rows, columns]


def _colored(pictures: Tensor, factors: Tensor) -> Tensor:
    brightness, contrast, saturation = factors[..., None, None, None].unbind(1)
    pictures = pictures * brightness
    mean = pictures.mean((1, 2, 3), keepdim=True)
    pictures = (pictures - mean) * contrast + mean
    gray = pictures.mean(1, keepdim=True)
    return ((pictures - gray) * saturation + gray).clamp(0, 1)
