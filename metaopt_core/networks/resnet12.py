"""A residual network of twelve convolutional layers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from metaopt_core.distributions.random import Stream
from metaopt_core.networks.convolution import convolve, max_pool, pointwise
from metaopt_core.networks.network import Params, examples_that_fit, uniform_parameters
from metaopt_core.networks.normalization import TRANSDUCTIVE, Normalization


@dataclass(frozen=True)
class ResNet12:
    """Four residual blocks, the mean over the remaining positions, then a linear layer (Lee, Maji, Ravichandran, Soatto 2019,
    section 4.1, without its regularization).

    A block is three 3×3 convolutions (stride 1), each normalized, with leaky ReLU between them; a 1×1 convolution of the block's
    input, normalized, is added; then leaky ReLU and 2×2 max-pooling. widths: filters of each block. size: height and width of
    pictures.
    """

    channels: int
    widths: tuple[int, ...]
    outputs: int
    normalization: Normalization = TRANSDUCTIVE
    size: tuple[int, int] = (28, 28)

    convolutions = 3
    slope = 0.1
    small = False
    looped = False

    def check(self, shape: torch.Size) -> None:
        smallest = 2 ** len(self.widths)
        if len(shape) != 3 or shape[0] != self.channels or min(shape[1:]) < smallest:
            raise ValueError(f"inputs are {list(shape)}: expected pictures [{self.channels}, ≥ {smallest}, ≥ {smallest}]")

    @property
    def transductive(self) -> bool:
        return self.normalization.by_batch

    @cached_property
    def per_step(self) -> frozenset[str]:
        return self.normalization.per_step(self.init(0))

    @property
    def examples_at_once(self) -> int:
        return examples_that_fit(self.size, self.widths, self.convolutions + 1)

    @property
    def head(self) -> tuple[str, ...]:
        return "linear.weight", "linear.bias"

    @property
    def width(self) -> int:
        return self.widths[-1]

    def init(self, seed: int, stream: Stream = Stream.PARAMETERS) -> Params:
        shapes: dict[str, tuple[tuple[int, ...], float]] = {}
        before = self.channels
        for block, width in enumerate(self.widths):
            for layer in range(self.convolutions):
                inputs = width if layer else before
                shapes[f"block{block}.conv{layer}.weight"] = (3, 3, inputs, width), self._bound(9 * inputs)
            shapes[f"block{block}.shortcut.weight"] = (before, width), self._bound(before)
            before = width
        shapes["linear.weight"] = (before, self.outputs), math.sqrt(6 / (before + self.outputs))
        params = uniform_parameters(shapes, seed, stream)
        for block, width in enumerate(self.widths):
            for layer in (*range(self.convolutions), "_shortcut"):
                params |= self.normalization.init(f"block{block}.norm{layer}", width)
        params["linear.bias"] = torch.zeros(1, self.outputs)
        return params

    def _bound(self, inputs: int) -> float:
        """He et al. 2015, equation 15, as the bound of a uniform distribution."""
        return math.sqrt(6 / ((1 + self.slope**2) * inputs))

    def __call__(self, params: Mapping[str, Tensor], x: Tensor, weight: Tensor | None = None) -> Tensor:
        return torch.baddbmm(params["linear.bias"], self._body(params, x, weight), params["linear.weight"])

    def features(self, params: Mapping[str, Tensor], x: Tensor, weight: Tensor | None = None) -> Tensor:
        return self._body({name: value[None] for name, value in params.items()}, x, weight)

    def last(self, params: Mapping[str, Tensor], features: Tensor) -> Tensor:
        return features @ params["linear.weight"] + params["linear.bias"]

    def _body(self, params: Mapping[str, Tensor], x: Tensor, weight: Tensor | None) -> Tensor:
        """All but the last layer, with parameters of each task [tasks, …] or of all [1, …]."""
        x = x.movedim(2, -1)  # [tasks, examples, height, width, channels]
        for block in range(len(self.widths)):
            name = f"block{block}"
            short = pointwise(x, params[f"{name}.shortcut.weight"])
            short = self.normalization(params, f"{name}.norm_shortcut", short, weight)
            for layer in range(self.convolutions):
                x = x if layer == 0 else F.leaky_relu(x, self.slope)
                x = convolve(x, params[f"{name}.conv{layer}.weight"], stride=1)
                x = self.normalization(params, f"{name}.norm{layer}", x, weight)
            x = max_pool(F.leaky_relu(x + short, self.slope))
        return x.mean((2, 3))
