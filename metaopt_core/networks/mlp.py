"""A fully connected network."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from metaopt_core.distributions.random import Stream
from metaopt_core.networks.network import Params, uniform_parameters


@dataclass(frozen=True)
class MLP:
    """Linear layers with ReLU between them; inputs of any shape are flattened.

    widths: units from the input to the output. Weights and biases start uniform within ±1/√(inputs of the layer).
    """

    widths: tuple[int, ...]

    examples_at_once = 20_000
    transductive = False
    per_step: ClassVar[frozenset[str]] = frozenset()

    @property
    def outputs(self) -> int:
        return self.widths[-1]

    def check(self, shape: torch.Size) -> None:
        if math.prod(shape) != self.widths[0]:
            raise ValueError(f"inputs have {math.prod(shape)} features, {list(shape)}: expected {self.widths[0]}")

    @property
    def small(self) -> bool:
        return max(inputs * units for inputs, units in zip(self.widths, self.widths[1:], strict=False)) <= 64 * 64

    @property
    def looped(self) -> bool:
        return self.small

    @property
    def head(self) -> tuple[str, ...]:
        return f"layer{len(self.widths) - 2}.weight", f"layer{len(self.widths) - 2}.bias"

    @property
    def width(self) -> int:
        return self.widths[-2]

    def features(self, params: Mapping[str, Tensor], x: Tensor, weight: Tensor | None = None) -> Tensor:  # noqa: ARG002
        rows = x.flatten(2).flatten(0, 1)
        for layer in range(len(self.widths) - 2):
            rows = torch.addmm(params[f"layer{layer}.bias"], rows, params[f"layer{layer}.weight"]).relu()
        return rows.view(*x.shape[:2], -1)

    def last(self, params: Mapping[str, Tensor], features: Tensor) -> Tensor:
        weight, bias = (params[name] for name in self.head)
        return features @ weight + bias

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shapes of the parameters, in order."""
        layers = enumerate(zip(self.widths, self.widths[1:], strict=False))
        return {
            f"layer{layer}.{kind}": (inputs if kind == "weight" else 1, units)
            for layer, (inputs, units) in layers
            for kind in ("weight", "bias")
        }

    def unpack(self, packed: Tensor) -> Params:
        """Parameters concatenated in the last dimension of a tensor, by their names: views [..., their shapes]."""
        parts, leading = packed.split(self._counts, -1), packed.shape[:-1]
        return {name: part.view(*leading, *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    @cached_property
    def _counts(self) -> list[int]:
        return [rows * columns for rows, columns in self.shapes.values()]

    def init(self, seed: int, stream: Stream = Stream.PARAMETERS) -> Params:
        inputs = [width for width in self.widths[:-1] for _ in ("weight", "bias")]
        bounds = {name: (shape, width**-0.5) for (name, shape), width in zip(self.shapes.items(), inputs, strict=True)}
        return uniform_parameters(bounds, seed, stream)

    def __call__(self, params: Mapping[str, Tensor], x: Tensor, weight: Tensor | None = None) -> Tensor:  # noqa: ARG002
        last = len(self.widths) - 2
        x = x.flatten(2)
        for layer in range(last + 1):
            x = torch.baddbmm(params[f"layer{layer}.bias"], x, params[f"layer{layer}.weight"])
            if layer < last:
                x = x.relu()
        return x
