"""Networks as pure functions of (parameters, inputs), written for a batch of tasks that each have parameters of their own.

Parameters are a dictionary name → tensor. An initialization has the plain shapes; a network is applied to parameters with a leading
task dimension, [tasks, …], and to inputs [tasks, examples, …]. There is no loop over tasks: a linear layer is one batched matrix
product, and a convolution is one of patches with weights.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from metaopt_core.convolution import convolve, norm_relu
from metaopt_core.distributions.random import Stream, uniform
from metaopt_core.spec.models import Conv4Spec, MLPSpec

Params = dict[str, Tensor]


class Network(Protocol):
    """What adaptation asks of a network."""

    @property
    def head(self) -> tuple[str, ...]:
        """Names of the parameters of the last layer."""

    @property
    def examples_at_once(self) -> int:
        """How many examples, over all tasks, are quickest to put through the network together."""

    @property
    def small(self) -> bool:
        """Whether its matrix products are too small for a second thread to help (waiting for each other costs threads more)."""

    def init(self, seed: int, stream: Stream = Stream.PARAMETERS) -> Params:
        """Initial parameters, in float32 on the CPU, as a function of the seed."""

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Outputs [tasks, examples, outputs] of parameters [tasks, …] on inputs [tasks, examples, …]."""


def build(spec: MLPSpec | Conv4Spec, input_shape: tuple[int, ...], outputs: int) -> Network:
    """The network that a spec names, for inputs of a shape (without task and example dimensions) and a number of outputs."""
    if isinstance(spec, MLPSpec):
        return MLP((math.prod(input_shape), *spec.hidden, outputs))
    return Conv4(input_shape[0], spec.filters, outputs)


@dataclass(frozen=True)
class MLP:
    """Linear layers with ReLU between them; inputs of any shape are flattened.

    widths: units from the input to the output. Weights and biases start uniform within ±1/√(inputs of the layer).
    """

    widths: tuple[int, ...]

    examples_at_once = 20_000

    @property
    def small(self) -> bool:
        return max(inputs * units for inputs, units in zip(self.widths, self.widths[1:], strict=False)) <= 64 * 64

    @property
    def head(self) -> tuple[str, ...]:
        return f"layer{len(self.widths) - 2}.weight", f"layer{len(self.widths) - 2}.bias"

    @cached_property
    def widths_as_tensor(self) -> Tensor:
        return torch.tensor(self.widths)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Of the parameters, in their order."""
        layers = enumerate(zip(self.widths, self.widths[1:], strict=False))
        return {
            f"layer{layer}.{kind}": (inputs if kind == "weight" else 1, units)
            for layer, (inputs, units) in layers
            for kind in ("weight", "bias")
        }

    def unpack(self, packed: Tensor) -> Params:
        """Parameters that lie behind each other in the last dimension of a tensor, by their names: views [..., their shapes]."""
        parts = packed.split([rows * columns for rows, columns in self.shapes.values()], -1)
        return {name: part.unflatten(-1, shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def init(self, seed: int, stream: Stream = Stream.PARAMETERS) -> Params:
        inputs = [width for width in self.widths[:-1] for _ in ("weight", "bias")]
        bounds = {name: (shape, width**-0.5) for (name, shape), width in zip(self.shapes.items(), inputs, strict=True)}
        return _uniform(bounds, seed, stream)

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        last = len(self.widths) - 2
        x = x.flatten(2)
        for layer in range(last + 1):
            x = torch.baddbmm(params[f"layer{layer}.bias"], x, params[f"layer{layer}.weight"])
            if layer < last:
                x = x.relu()
        return x


@dataclass(frozen=True)
class Conv4:
    """Four blocks of 3×3 convolution (stride 2, padding 1), batch norm on the current batch and ReLU, the mean over the remaining
    positions, then a linear layer (Finn, Abbeel, Levine 2017, section 5.2, the network without pooling).

    Convolutions have no bias: the normalization that follows would take it out again.
    """

    channels: int
    filters: int
    outputs: int

    blocks = 4
    epsilon = 1e-5
    examples_at_once = 80
    small = False

    @property
    def head(self) -> tuple[str, ...]:
        return "linear.weight", "linear.bias"

    def init(self, seed: int, stream: Stream = Stream.PARAMETERS) -> Params:
        shapes: dict[str, tuple[tuple[int, ...], float]] = {}
        for block in range(self.blocks):
            inputs = self.filters if block else self.channels
            glorot = math.sqrt(6 / (9 * (inputs + self.filters)))
            shapes[f"conv{block}.weight"] = (3, 3, inputs, self.filters), glorot
        shapes["linear.weight"] = (self.filters, self.outputs), math.sqrt(6 / (self.filters + self.outputs))
        params = _uniform(shapes, seed, stream)
        for block in range(self.blocks):
            params[f"norm{block}.scale"] = torch.ones(self.filters)
            params[f"norm{block}.shift"] = torch.zeros(self.filters)
        params["linear.bias"] = torch.zeros(1, self.outputs)
        return params

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        x = x.movedim(2, -1)  # [tasks, examples, height, width, channels]
        for block in range(self.blocks):
            x = convolve(x, params[f"conv{block}.weight"])
            x = norm_relu(x, params[f"norm{block}.scale"], params[f"norm{block}.shift"], self.epsilon)
        return torch.baddbmm(params["linear.bias"], x.mean((2, 3)), params["linear.weight"])


def _uniform(shapes: Mapping[str, tuple[tuple[int, ...], float]], seed: int, stream: Stream) -> Params:
    """Tensors of the given shapes, uniform within ± the given bound; each is a function of (seed, stream, its place)."""
    params = {}
    for place, (name, (shape, bound)) in enumerate(shapes.items()):
        count = math.prod(shape)
        # An index must own one width of numbers, so the place picks a far-away range instead of being the index itself.
        numbers = torch.from_numpy(uniform(seed, stream, place * 2**32, count, 1).reshape(shape))
        params[name] = ((2 * numbers - 1) * bound).float()
    return params
