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
        shift = params[f"{name}.shift"][:, None, None, None]
        if self.kind == "none":
            return x + shift
        if self.kind == "transductive":
            normal = _standardized(x.flatten(1, 3), (1,))
        else:
            groups = self.groups if self.kind == "group" else 1
            normal = _standardized(x.flatten(2, 3).unflatten(-1, (groups, -1)), (2, 4))
        return torch.addcmul(shift, normal.view(x.shape), params[f"{name}.scale"][:, None, None, None])

    def with_relu(self, params: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
        """The same, then ReLU; for `transductive` by compiled loops where there are any."""
        if self.kind == "transductive":
            return norm_relu(x, params[f"{name}.scale"], params[f"{name}.shift"], EPSILON)
        return self(params, name, x).relu()


TRANSDUCTIVE = Normalization()


def _standardized(x: Tensor, over: tuple[int, ...]) -> Tensor:
    variance, mean = torch.var_mean(x, over, correction=0, keepdim=True)
    return (x - mean) * (variance + EPSILON).rsqrt()
