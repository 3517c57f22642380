"""Parameters of which every inner step has its own: MAML++'s per-step batch norm (Antoniou, Edwards, Storkey 2019, section 4).

Such a parameter is a tensor [steps, …]. Step k = 0, 1, … of the inner loop runs the network on the support set with row k,
and so are the queries run that judge this step. Steps beyond the last row use that one, and queries before the first step
use row 0. A row serves only one step, so adapting it would be pointless: only the outer loop learns it.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from metaopt_core.meta.losses import Gradient, HessianProduct, TaskLoss, Unpacked
from metaopt_core.networks.network import Params


def at_step(params: Mapping[str, Tensor], names: Collection[str], step: int) -> Params:
    """Parameters [tasks, …] as a network takes them in a step: of those that are named, [tasks, steps, …], the step's row."""
    return {name: value.select(1, _row(value, step)) if name in names else value for name, value in params.items()}


class AtStep(Unpacked):
    """A loss in one step, as a function of parameters that have rows for all of them."""

    def __init__(self, loss: TaskLoss, names: Collection[str], step: int):
        self._loss, self._names, self._step = loss, names, step

    def gradient(self, params: Params) -> tuple[Tensor, Gradient]:
        losses, gradient = self._loss.gradient(at_step(params, self._names, self._step))
        return losses, self._in_its_row(params, gradient)

    def linearized(self, params: Params) -> tuple[Gradient, HessianProduct]:
        gradient, product = self._loss.linearized(at_step(params, self._names, self._step))

        def whole(direction: Sequence[Tensor]) -> Gradient:
            along = at_step(dict(zip(params, direction, strict=True)), self._names, self._step)
            return self._in_its_row(params, product(tuple(along.values())))

        return self._in_its_row(params, gradient), whole

    def bytes_kept(self, params: Params) -> int:
        return self._loss.bytes_kept(at_step(params, self._names, self._step))

    def _in_its_row(self, params: Params, gradient: Gradient) -> Gradient:
        """Derivatives by the step's row as derivatives by all rows."""
        return tuple(
            torch.zeros_like(value).select_scatter(found, 1, _row(value, self._step)) if name in self._names else found
            for (name, value), found in zip(params.items(), gradient, strict=True)
        )


def _row(value: Tensor, step: int) -> int:
    return min(max(step, 0), value.shape[1] - 1)
