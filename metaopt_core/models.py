"""Networks as pure functions of (parameters, inputs), written for a batch of tasks that each have parameters of their own.

Parameters are a dictionary name → tensor. An initialization has the plain shapes; a network is applied to parameters with a leading
task dimension, [tasks, …], and to inputs [tasks, examples, …]. There is no loop over tasks: a linear layer is one batched matrix
product, and a convolution is one of patches with weights.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from metaopt_core.convolution import convolve, max_pool, pointwise
from metaopt_core.distributions.random import Stream, uniform
from metaopt_core.errors import UserError
from metaopt_core.normalization import TRANSDUCTIVE, Normalization
from metaopt_core.own_module import ACTIVATIONS_AT_ONCE, own_module
from metaopt_core.spec.models import Conv4Spec, MLPSpec, ModelSpec, ModuleSpec

Params = dict[str, Tensor]


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """All numbers behind each other, [their count]: a view where they lie so in memory, else a copy. Without a graph."""
    first, count = tensors[0], 0
    for tensor in tensors:
        if tensor.data_ptr() != first.data_ptr() + count * first.itemsize or not tensor.is_contiguous():
            return torch.cat([one.flatten() for one in tensors])
        count += tensor.numel()
    if (first.storage_offset() + count) * first.itemsize > first.untyped_storage().nbytes():
        return torch.cat([one.flatten() for one in tensors])  # neighbours by chance
    return first.as_strided((count,), (1,))


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

    @property
    def looped(self) -> bool:
        """Whether compiled loops (`kernels`) compute it on a CPU."""

    @property
    def transductive(self) -> bool:
        """Whether an example's outputs depend on the other examples of its task that go through the network with it."""

    @property
    def per_step(self) -> frozenset[str]:
        """Names of the parameters that have a row for every inner step (`metaopt_core.meta.per_step`)."""

    def init(self, seed: int, stream: Stream = Stream.PARAMETERS) -> Params:
        """Initial parameters, in float32 on the CPU, as a function of the seed."""

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Outputs [tasks, examples, outputs] of parameters [tasks, …], of those with rows one, on inputs [tasks, examples, …]."""


def build(spec: ModelSpec, input_shape: tuple[int, ...], outputs: int, steps: int | None = None) -> Network:
    """The network that a spec names, for inputs of a shape (without task and example dimensions) and a number of outputs.

    steps: of the inner loop that it is for; without one, `per_step` has nothing to differ in and becomes `transductive`. Raises
    UserError where they don't go together.
    """
    if isinstance(spec, MLPSpec):
        return MLP((math.prod(input_shape), *spec.hidden, outputs))
    if isinstance(spec, ModuleSpec):
        return own_module(spec.path, spec.arguments, input_shape, outputs)
    channels, height, width = input_shape
    pooling, blocks = (spec.pooling, 4) if isinstance(spec, Conv4Spec) else (True, len(spec.widths))
    if pooling and min(height, width) >> blocks == 0:
        raise UserError(
            f"train.model: {blocks} times 2×2 pooling leave nothing of pictures of {height}×{width}: expected at least "
            f"{2**blocks}×{2**blocks}"
        )
    kind = "transductive" if spec.normalization == "per_step" and steps is None else spec.normalization
    normalization = Normalization(kind, spec.groups, steps or 1)
    if isinstance(spec, Conv4Spec):
        return Conv4(channels, spec.filters, outputs, normalization, spec.pooling, (height, width))
    return ResNet12(channels, spec.widths, outputs, normalization, (height, width))


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
    def small(self) -> bool:
        return max(inputs * units for inputs, units in zip(self.widths, self.widths[1:], strict=False)) <= 64 * 64

    @property
    def looped(self) -> bool:
        return self.small

    @property
    def head(self) -> tuple[str, ...]:
        return f"layer{len(self.widths) - 2}.weight", f"layer{len(self.widths) - 2}.bias"

    @cached_property
    def widths_as_tensor(self) -> Tensor:
        return torch.tensor(self.widths)

    @cached_property
    def weights(self) -> int:
        """How many numbers the matrices have, all together."""
        return sum(inputs * units for inputs, units in zip(self.widths, self.widths[1:], strict=False))

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
        parts, leading = packed.split(self._counts, -1), packed.shape[:-1]
        return {name: part.view(*leading, *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    @cached_property
    def _counts(self) -> list[int]:
        return [rows * columns for rows, columns in self.shapes.values()]

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
    """Four blocks of 3×3 convolution (padding 1), normalization and ReLU, then a linear layer (Finn, Abbeel, Levine 2017).

    Without pooling, convolutions have stride 2 and the linear layer takes the mean over the remaining positions (section 5.2). With
    pooling, they have stride 1, 2×2 max-pooling ends each block, and the linear layer takes all remaining positions, as the paper's
    code does for natural pictures. size: height and width of the pictures, which only that asks for.

    Convolutions have no bias: the shift of what follows does its work.
    """

    channels: int
    filters: int
    outputs: int
    normalization: Normalization = TRANSDUCTIVE
    pooling: bool = False
    size: tuple[int, int] = (28, 28)

    blocks = 4
    small = False

    @property
    def transductive(self) -> bool:
        return self.normalization.by_batch

    @cached_property
    def per_step(self) -> frozenset[str]:
        return _per_step(self)

    @property
    def looped(self) -> bool:
        return self.transductive and not self.pooling

    @property
    def examples_at_once(self) -> int:
        return _at_once(self.size, (self.filters,) * self.blocks) if self.pooling else 80

    @property
    def head(self) -> tuple[str, ...]:
        return "linear.weight", "linear.bias"

    def init(self, seed: int, stream: Stream = Stream.PARAMETERS) -> Params:
        shapes: dict[str, tuple[tuple[int, ...], float]] = {}
        for block in range(self.blocks):
            inputs = self.filters if block else self.channels
            glorot = math.sqrt(6 / (9 * (inputs + self.filters)))
            shapes[f"conv{block}.weight"] = (3, 3, inputs, self.filters), glorot
        height, width = (side >> self.blocks for side in self.size) if self.pooling else (1, 1)
        features = height * width * self.filters
        shapes["linear.weight"] = (features, self.outputs), math.sqrt(6 / (features + self.outputs))
        params = _uniform(shapes, seed, stream)
        for block in range(self.blocks):
            params |= self.normalization.init(f"norm{block}", self.filters)
        params["linear.bias"] = torch.zeros(1, self.outputs)
        return params

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        x = x.movedim(2, -1)  # [tasks, examples, height, width, channels]
        for block in range(self.blocks):
            x = convolve(x, params[f"conv{block}.weight"], stride=1 if self.pooling else 2)
            x = self.normalization.with_relu(params, f"norm{block}", x)
            x = max_pool(x) if self.pooling else x
        features = x.flatten(2) if self.pooling else x.mean((2, 3))
        return torch.baddbmm(params["linear.bias"], features, params["linear.weight"])


@dataclass(frozen=True)
class ResNet12:
    """Four residual blocks, the mean over the remaining positions, then a linear layer (Lee, Maji, Ravichandran, Soatto 2019,
    section 4.1, without its regularization).

    A block is three 3×3 convolutions (stride 1), each normalized, with leaky ReLU between them; a 1×1 convolution of what came in,
    normalized, is added; then leaky ReLU and 2×2 max-pooling. widths: filters of each block. size: height and width of pictures.
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

    @property
    def transductive(self) -> bool:
        return self.normalization.by_batch

    @cached_property
    def per_step(self) -> frozenset[str]:
        return _per_step(self)

    @property
    def examples_at_once(self) -> int:
        return _at_once(self.size, self.widths, self.convolutions + 1)

    @property
    def head(self) -> tuple[str, ...]:
        return "linear.weight", "linear.bias"

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
        params = _uniform(shapes, seed, stream)
        for block, width in enumerate(self.widths):
            for layer in (*range(self.convolutions), "_shortcut"):
                params |= self.normalization.init(f"block{block}.norm{layer}", width)
        params["linear.bias"] = torch.zeros(1, self.outputs)
        return params

    def _bound(self, inputs: int) -> float:
        """He et al. 2015, equation 15, as the bound of a uniform distribution."""
        return math.sqrt(6 / ((1 + self.slope**2) * inputs))

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        x = x.movedim(2, -1)  # [tasks, examples, height, width, channels]
        for block in range(len(self.widths)):
            name = f"block{block}"
            short = self.normalization(params, f"{name}.norm_shortcut", pointwise(x, params[f"{name}.shortcut.weight"]))
            for layer in range(self.convolutions):
                x = x if layer == 0 else F.leaky_relu(x, self.slope)
                x = self.normalization(params, f"{name}.norm{layer}", convolve(x, params[f"{name}.conv{layer}.weight"], stride=1))
            x = max_pool(F.leaky_relu(x + short, self.slope))
        return torch.baddbmm(params["linear.bias"], x.mean((2, 3)), params["linear.weight"])


def _per_step(network: Conv4 | ResNet12) -> frozenset[str]:
    if network.normalization.kind != "per_step":
        return frozenset()
    return frozenset(name for name in network.init(0) if name.endswith((".scale", ".shift")))


def without_steps(network: Network) -> Network:
    """The network as it is where every step has the same parameters."""
    return replace(network, normalization=TRANSDUCTIVE) if isinstance(network, Conv4 | ResNet12) and network.per_step else network


def _at_once(size: tuple[int, int], widths: tuple[int, ...], layers: int = 1) -> int:
    """How many examples fill a CPU's caches, where each of some blocks halves the pictures."""
    activations = sum(layers * filters * (size[0] >> block) * (size[1] >> block) for block, filters in enumerate(widths))
    return max(1, ACTIVATIONS_AT_ONCE // activations)


def _uniform(shapes: Mapping[str, tuple[tuple[int, ...], float]], seed: int, stream: Stream) -> Params:
    """Tensors of the given shapes, uniform within ± the given bound; each is a function of (seed, stream, its place)."""
    params = {}
    for place, (name, (shape, bound)) in enumerate(shapes.items()):
        count = math.prod(shape)
        # An index must own one width of numbers, so the place picks a far-away range instead of being the index itself.
        numbers = torch.from_numpy(uniform(seed, stream, place * 2**32, count, 1).reshape(shape))
        params[name] = ((2 * numbers - 1) * bound).float()
    return params
