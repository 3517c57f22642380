"""Networks as pure functions of (parameters, inputs), written for a batch of tasks that each have their own parameters.

Parameters are a dictionary name → tensor. An initialization has the plain shapes; a network is applied to parameters with a leading
task dimension, [tasks, …], and to inputs [tasks, examples, …]. There is no loop over tasks: a linear layer is one batched matrix
product, and a convolution is one of patches with weights.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from metaopt_core.distributions.random import Stream, uniform

Params = dict[str, Tensor]

ACTIVATIONS_AT_ONCE = 1_350_000
"""Activations that fill a CPU's caches, found by experiment."""


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate into one flat tensor [their count]: a view if they are stored contiguously, else a copy. Without a graph."""
    first, count = tensors[0], 0
    for tensor in tensors:
        if tensor.data_ptr() != first.data_ptr() + count * first.itemsize or not tensor.is_contiguous():
            return torch.cat([one.flatten() for one in tensors])
        count += tensor.numel()
    if (first.storage_offset() + count) * first.itemsize > first.untyped_storage().nbytes():
        return torch.cat([one.flatten() for one in tensors])  # adjacent, but in separate storages
    return first.as_strided((count,), (1,))


class Network(Protocol):
    """What adaptation needs of a network."""

    @property
    def outputs(self) -> int:
        """The number of outputs for an example."""

    def check(self, shape: torch.Size) -> None:
        """Raises ValueError unless it takes inputs of a shape, without task and example dimensions."""

    @property
    def head(self) -> tuple[str, ...]:
        """Names of the parameters of the last layer."""

    @property
    def width(self) -> int:
        """How many features the last layer takes. Raises UserError if the last layer is not linear."""

    def features(self, params: Mapping[str, Tensor], x: Tensor, weight: Tensor | None = None) -> Tensor:
        """What the last layer takes, [tasks, examples, width], by parameters that all tasks share, in their plain shapes.

        All examples go through the layers together, as in a network that knows no tasks. params: those of the last layer may be
        missing. x and weight as in a call.
        """

    def last(self, params: Mapping[str, Tensor], features: Tensor) -> Tensor:
        """The last layer, with shared parameters: features [tasks, examples, width] to outputs [tasks, examples, outputs]."""

    @property
    def examples_at_once(self) -> int:
        """How many examples, over all tasks, are fastest to process together."""

    @property
    def small(self) -> bool:
        """Whether its matrix products are too small for a second thread to help (synchronization costs more)."""

    @property
    def looped(self) -> bool:
        """Whether compiled loops (`kernels`) compute it on a CPU."""

    @property
    def transductive(self) -> bool:
        """Whether an example's outputs depend on the other examples of its task in the same call."""

    @property
    def per_step(self) -> frozenset[str]:
        """Names of the parameters that have a row for every inner step (`metaopt_core.meta.per_step`)."""

    def init(self, seed: int, stream: Stream = Stream.PARAMETERS) -> Params:
        """Initial parameters, in float32 on the CPU, as a function of the seed."""

    def __call__(self, params: Mapping[str, Tensor], x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Outputs [tasks, examples, outputs] for parameters [tasks, …] and inputs [tasks, examples, …]. Parameters with a
        row for each step are passed as one row.

        weight [tasks, examples]: weights of the examples in batch normalization; those with weight 0 don't affect others' outputs.
        """


def examples_that_fit(size: tuple[int, int], widths: tuple[int, ...], layers: int = 1) -> int:
    """How many examples fill a CPU's caches, if each block halves the pictures."""
    activations = sum(layers * filters * (size[0] >> block) * (size[1] >> block) for block, filters in enumerate(widths))
    return max(1, ACTIVATIONS_AT_ONCE // activations)


def uniform_parameters(shapes: Mapping[str, tuple[tuple[int, ...], float]], seed: int, stream: Stream) -> Params:
    """Tensors of the given shapes, uniform within ± the given bound; each is a function of (seed, stream, its place)."""
    params = {}
    for place, (name, (shape, bound)) in enumerate(shapes.items()):
        count = math.prod(shape)
        # An index must own one width of numbers, so the place picks a far-away range instead of being the index itself.
        numbers = torch.from_numpy(uniform(seed, stream, place * 2**32, count, 1).reshape(shape))
        params[name] = ((2 * numbers - 1) * bound).float()
    return params
