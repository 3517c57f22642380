"""Inner step sizes that are learned: meta-parameters beside the initial parameters, in the same dictionary.

The entry `inner_lr.NAME` holds the step sizes of the parameter NAME, and `inner_lr.*` those of every parameter: a tensor
[steps, …], a row an inner step, which broadcasts to the parameter. Steps beyond the last row use that row. A dictionary
without such entries is adapted with a fixed number. So everything that stores parameters also stores step sizes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt_core.networks.network import Params
from metaopt_core.spec.train import InnerSpec

PREFIX = "inner_lr."
EVERY = f"{PREFIX}*"

Size = float | tuple[Tensor, ...]
"""The size of one step: a number, or a tensor for each parameter that broadcasts to it."""


def initial(inner: InnerSpec, params: Mapping[str, Tensor]) -> Params:
    """The step sizes that the spec learns, each `inner.lr` at first; empty if it is fixed.

    `per_parameter` is Meta-SGD (Li et al. 2017, equation 1), `per_layer_and_step` LSLR of MAML++ (Antoniou et al. 2019, section 4).
    """
    match inner.learned_lr:
        case "none":
            shapes: dict[str, tuple[int, ...]] = {}
        case "scalar":
            shapes = {EVERY: (1,)}
        case "per_layer_and_step":
            shapes = {PREFIX + name: (inner.steps, *(1 for _ in value.shape)) for name, value in params.items()}
        case "per_parameter":
            shapes = {PREFIX + name: (1, *value.shape) for name, value in params.items()}
    return {name: torch.full(shape, inner.lr) for name, shape in shapes.items()}


def split(params: Mapping[str, Tensor]) -> tuple[Params, Params]:
    """Meta-parameters as initial parameters and step sizes (under their full names; empty if they are fixed)."""
    sizes = {name: value for name, value in params.items() if name.startswith(PREFIX)}
    return {name: value for name, value in params.items() if name not in sizes}, sizes


@dataclass(frozen=True)
class Sizes(Sequence[Size]):
    """The size of each of some steps. Steps beyond the last of `different` share it, so that many steps take no memory."""

    different: Sequence[Size]
    steps: int

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step):  # type: ignore[no-untyped-def]
        if not 0 <= step < self.steps:
            raise IndexError(step)
        return self.different[min(step, len(self.different) - 1)]

    def each(self, change: Callable[[Size], Size]) -> "Sizes":
        """The same with each size changed."""
        return Sizes([change(size) for size in self.different], self.steps)


def sizes(learned: Mapping[str, Tensor], names: Mapping[str, Tensor], steps: int, fixed: float) -> Sizes:
    """The sizes of steps for the parameters of the given names: the learned ones, if there are any, else the fixed one."""
    if not learned:
        return Sizes([float(fixed)], steps)
    rows = [learned[_key(learned, name)] for name in names]
    different = min(steps, max(len(row) for row in rows))
    return Sizes([tuple(row[min(step, len(row) - 1)] for row in rows) for step in range(different)], steps)


def gradient(sizes: Mapping[str, Tensor], by_step: list[dict[str, Tensor]], tasks: int) -> Params:
    """The gradients [tasks, …] by each entry of `sizes`, from those by each step's: name → [tasks, the parameter's shape] (of a
    parameter that doesn't move, none)."""
    found: Params = {key: value.new_zeros(tasks, *value.shape) for key, value in sizes.items()}
    for step, by_name in enumerate(by_step):
        for name, value in by_name.items():
            key = _key(sizes, name)
            row = found[key][:, min(step, len(sizes[key]) - 1)]
            row += value.flatten(1).sum(1) if row.dim() == 1 else value.sum_to_size(row.shape)
    return found


def _key(sizes: Mapping[str, Tensor], name: str) -> str:
    return EVERY if EVERY in sizes else PREFIX + name
