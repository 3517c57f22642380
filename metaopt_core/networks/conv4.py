"""The convolutional network of few-shot papers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from metaopt_core.distributions.random import Stream
from metaopt_core.networks.convolution import convolve, max_pool
from metaopt_core.networks.network import Params, examples_that_fit, uniform_parameters
from metaopt_core.networks.normalization import TRANSDUCTIVE, Normalization


@dataclass(frozen=True)
class Conv4:
    """Four blocks of 3×3 convolution (padding 1), normalization and ReLU, then a linear layer (Finn, Abbeel, Levine 2017).

    Without pooling, convolutions have stride 2 and the linear layer takes the mean over the remaining positions (section 5.2). With
    pooling, they have stride 1, 2×2 max-pooling ends each block, and the linear layer takes all remaining positions, as in the
    paper's code for natural pictures. size: height and width of the pictures, needed only with pooling.

    Convolutions have no bias: the shift of the normalization after them replaces it.
    """

    channels: int
    filters: int
    outputs: int
    normalization: Normalization = TRANSDUCTIVE
    pooling: bool = False
    size: tuple[int, int] = (28, 28)

    blocks = 4
    small = False

    def check(self, shape: torch.Size) -> None:
        if len(shape) != 3 or shape[0] != self.channels or (self.pooling and shape[1:] != self.size):
            height, width = self.size if self.pooling else ("height", "width")
            raise ValueError(f"inputs are {list(shape)}: expected pictures [{self.channels}, {height}, {width}]")

    @property
    def transductive(self) -> bool:
        return self.normalization.by_batch

    @cached_property
    def per_step(self) -> frozenset[str]:
        return self.normalization.per_step(self.init(0))

    @property
    def looped(self) -> bool:
        return self.transductive and not self.pooling

    @property
    def examples_at_once(self) -> int:
        return examples_that_fit(self.size, (self.filters,) * self.blocks) if self.pooling else 80

    @property
    def head(self) -> tuple[str, ...]:
        return "linear.weight", "linear.bias"

    @property
    def width(self) -> int:
        height, width = (side >> self.blocks for side in self.size) if self.pooling else (1, 1)
        return height * width * self.filters

    def init(self, seed: int, stream: Stream = Stream.PARAMETERS) -> Params:
        shapes: dict[str, tuple[tuple[int, ...], float]] = {}
        for block in range(self.blocks):
            inputs = self.filters if block else self.channels
            glorot = math.sqrt(6 / (9 * (inputs + self.filters)))
            shapes[f"conv{block}.weight"] = (3, 3, inputs, self.filters), glorot
        shapes["linear.weight"] = (self.width, self.outputs), math.sqrt(6 / (self.width + self.outputs))
        params = uniform_parameters(shapes, seed, stream)
        for block in range(self.blocks):
            params |= self.normalization.init(f"norm{block}", self.filters)
        params["linear.bias"] = torch.zeros(1, self.outputs)
        return params

    def __call__(self, params: Mapping[str, Tensor], x: Tensor, weight: Tensor | None = None) -> Tensor:
        return torch.baddbmm(params["linear.bias"], self._body(params, x, weight), params["linear.weight"])

    def features(self, params: Mapping[str, Tensor], x: Tensor, weight: Tensor | None = None) -> Tensor:
        return self._body({name: value[None] for name, value in params.items()}, x, weight)

    def last(self, params: Mapping[str, Tensor], features: Tensor) -> Tensor:
        return features @ params["linear.weight"] + params["linear.bias"]

    def _body(self, params: Mapping[str, Tensor], x: Tensor, weight: Tensor | None) -> Tensor:
        """All but the last layer, with parameters of each task [tasks, …] or of all [1, …]."""
        x = x.movedim(2, -1)  # [tasks, examples, height, width, channels]
        for block in range(self.blocks):
            x = convolve(x, params[f"conv{block}.weight"], stride=1 if self.pooling else 2)
            x = self.normalization.with_relu(params, f"norm{block}", x, weight)
            x = max_pool(x) if self.pooling else x
        return x.flatten(2) if self.pooling else x.mean((2, 3))
