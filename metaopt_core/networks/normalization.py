"""Normalization in convolutional networks, for tasks that each have their own scale and shift.

The kinds differ in which statistics normalize: those of the whole batch of a task's examples, so that a prediction depends on the
other queries, those of each example by itself, or those of earlier batches.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from metaopt_core.networks.convolution import norm_relu

EPSILON = 1e-5


@dataclass(frozen=True)
class Normalization:
    """kind: `transductive` is batch norm by the statistics of the batch at hand (Ioffe, Szegedy 2015), `per_step` the same with a
    scale and a shift for every inner step (Antoniou, Edwards, Storkey 2019, section 4), `group` uses the statistics of each
    example's groups of channels (Wu, He 2018), `layer` those of all its channels together, `none` only adds the shift.

    groups: how many groups of channels `group` makes. steps: how many inner steps `per_step` has rows for.
    """

    kind: Literal["transductive", "per_step", "group", "layer", "none"] = "transductive"
    groups: int = 8
    steps: int = 1

    @property
    def by_batch(self) -> bool:
        """Whether an example is normalized by the other examples in its batch."""
        return self.kind in {"transductive", "per_step"}

    def per_step(self, params: Mapping[str, Tensor]) -> frozenset[str]:
        """Names of a network's parameters that have a row for every inner step."""
        return frozenset(name for name in params if name.endswith((".scale", ".shift"))) if self.kind == "per_step" else frozenset()

    def init(self, name: str, channels: int) -> dict[str, Tensor]:
        """The initial scale (one; not for `none`) and shift (zero) of a layer, as NAME.scale and NAME.shift: [channels] each, and
        [steps, channels] for `per_step`."""
        shape = (self.steps, channels) if self.kind == "per_step" else (channels,)
        params = {f"{name}.scale": torch.ones(shape), f"{name}.shift": torch.zeros(shape)}
        if self.kind == "none":
            del params[f"{name}.scale"]
        return params

    def __call__(self, params: Mapping[str, Tensor], name: str, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """x [tasks, examples, h, w, channels], with a layer's scale and shift [tasks, channels]: like x.

        weight [tasks, examples]: weights of the examples in the statistics of a batch.
        """
        scale, shift = params.get(f"{name}.scale"), params[f"{name}.shift"]
        if scale is None:
            return x + shift[:, None, None, None]
        if self.by_batch and weight is not None:
            return _by_statistics(x, *moments(x, weight), scale, shift)
        if self.by_batch:
            return _normalized(x.flatten(1, 3), None, scale[:, None], shift[:, None]).view(x.shape)
        groups = self.groups if self.kind == "group" else 1
        return _normalized(x.flatten(2, 3), groups, scale[:, None, None], shift[:, None, None]).view(x.shape)

    def with_relu(self, params: Mapping[str, Tensor], name: str, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """The same, then ReLU; by compiled loops if there are any, if it normalizes by a batch of equally weighted examples."""
        if self.by_batch and weight is None:
            return norm_relu(x, params[f"{name}.scale"], params[f"{name}.shift"], EPSILON)
        return self(params, name, x, weight).relu()


TRANSDUCTIVE = Normalization()

Statistics = Mapping[str, tuple[Tensor, Tensor]]
"""Mean and variance of each channel, by the name of the layer."""


@dataclass(frozen=True)
class Noted(Normalization):
    """Batch norm that records the statistics that it normalizes by, [tasks, channels] each."""

    noted: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __call__(self, params: Mapping[str, Tensor], name: str, x: Tensor, weight: Tensor | None = None) -> Tensor:
        self.noted[name] = moments(x, weight)
        return super().__call__(params, name, x, weight)

    def with_relu(self, params: Mapping[str, Tensor], name: str, x: Tensor, weight: Tensor | None = None) -> Tensor:
        return self(params, name, x, weight).relu()


@dataclass(frozen=True)
class Given(Normalization):
    """Batch norm by statistics of earlier batches, [channels] each."""

    statistics: Statistics = field(default_factory=dict)

    def __call__(self, params: Mapping[str, Tensor], name: str, x: Tensor, weight: Tensor | None = None) -> Tensor:  # noqa: ARG002
        return _by_statistics(x, *self.statistics[name], params[f"{name}.scale"], params[f"{name}.shift"])

    def with_relu(self, params: Mapping[str, Tensor], name: str, x: Tensor, weight: Tensor | None = None) -> Tensor:
        return self(params, name, x, weight).relu()


def moments(x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and variance [tasks, channels] of x [tasks, examples, h, w, channels], by the examples' weights [tasks, examples]."""
    if weight is None:
        variance, mean = torch.var_mean(x, (1, 2, 3), correction=0)
        return mean, variance
    total = weight.sum(1, keepdim=True) * (x.shape[2] * x.shape[3])
    share = (weight / total.clamp(min=torch.finfo(total.dtype).tiny))[:, :, None, None, None]
    mean = (x * share).sum((1, 2, 3), keepdim=True)
    variance = ((x - mean).square() * share).sum((1, 2, 3))
    return mean[:, 0, 0, 0], variance


def _by_statistics(x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x [tasks, examples, h, w, channels]; scale and shift [tasks, channels]; mean and variance alike, or [channels]."""
    factor = scale * (variance + EPSILON).rsqrt()
    shift = shift - mean * factor
    return torch.addcmul(shift[:, None, None, None], x, factor[:, None, None, None])


def _normalized(x: Tensor, groups: int | None, scale: Tensor, shift: Tensor) -> Tensor:
    """x [..., positions, channels] by the statistics of each channel, or of each group of channels; scale and shift broadcast.

    With as few passes over x as possible: first a channel's statistics, then those of its group.
    """
    variance, mean = torch.var_mean(x, -2, correction=0, keepdim=True)
    if groups is not None:
        each = mean.unflatten(-1, (groups, -1))
        middle = each.mean(-1, keepdim=True)
        spread = (variance.unflatten(-1, (groups, -1)) + (each - middle).square()).mean(-1, keepdim=True)
        variance, mean = (one.expand_as(each).flatten(-2) for one in (spread, middle))
    factor = scale * (variance + EPSILON).rsqrt()
    return torch.addcmul(shift - mean * factor, x, factor)
