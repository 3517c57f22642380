"""Normalization in convolutional networks, for tasks that each have a scale and a shift of their own.

What differs is whose statistics normalize: those of the whole batch of a task's examples, so that a prediction depends on the other
queries, or those of each example alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metaopt_core.convolution import norm_relu

EPSILON = 1e-5


@dataclass(frozen=True)
class Normalization:
    """kind: `transductive` is batch norm by the statistics of the batch at hand (Ioffe, Szegedy 2015), `group` of each example's
    groups of channels (Wu, He 2018), `layer` of each example's channels all together, `none` adds the shift alone.

    groups: how many groups of channels `group` makes.
    """

    kind: Literal["transductive", "group", "layer", "none"] = "transductive"
    groups: int = 8

    def init(self, name: str, channels: int) -> dict[str, Tensor]:
        """The initial scale (one; not for `none`) and shift (zero) of a layer: [channels] each, as NAME.scale and NAME.shift."""
        params = {f"{name}.scale": torch.ones(channels), f"{name}.shift": torch.zeros(channels)}
        if self.kind == "none":
            del params[f"{name}.scale"]
        return params

    def __call__(self, params: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
        """x [tasks, examples, h, w, channels], with a layer's scale and shift [tasks, channels]: like x."""
        scale, shift = params.get(f"{name}.scale"), params[f"{name}.shift"]
        if scale is None:
            return x + shift[:, None, None, None]
        if self.kind == "transductive":
            return _normalized(x.flatten(1, 3), None, scale[:, None], shift[:, None]).view(x.shape)
        groups = self.groups if self.kind == "group" else 1
        return _normalized(x.flatten(2, 3), groups, scale[:, None, None], shift[:, None, None]).view(x.shape)

    def with_relu(self, params: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
        """The same, then ReLU; for `transductive` by compiled loops where there are any."""
        if self.kind == "transductive":
            return norm_relu(x, params[f"{name}.scale"], params[f"{name}.shift"], EPSILON)
        return self(params, name, x).relu()


TRANSDUCTIVE = Normalization()


def _normalized(x: Tensor, groups: int | None, scale: Tensor, shift: Tensor) -> Tensor:
    """x [..., positions, channels] by the statistics of each channel, or of each group of channels; scale and shift broadcast.

    In passes over x that are as few, and as even, as they can be: a channel's statistics first, then those of its group.
    """
    variance, mean = torch.var_mean(x, -2, correction=0, keepdim=True)
    if groups is not None:
        each = mean.unflatten(-1, (groups, -1))
        middle = each.mean(-1, keepdim=True)
        spread = (variance.unflatten(-1, (groups, -1)) + (each - middle).square()).mean(-1, keepdim=True)
        variance, mean = (one.expand_as(each).flatten(-2) for one in (spread, middle))
    factor = scale * (variance + EPSILON).rsqrt()
    return torch.addcmul(shift - mean * factor, x, factor)
