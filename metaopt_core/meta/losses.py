"""What the inner and the outer loop need of a loss: its gradient and products with its Hessian, for all tasks of a batch at once.

Everything has a leading task dimension. Tasks are independent: the gradient of the sum of their losses by their own parameters is
each task's gradient, and one product serves all of them.
"""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from metaopt_core import kernels
from metaopt_core.networks.mlp import MLP
from metaopt_core.networks.network import Params, joined

Result = TypeVar("Result")

_PACKED = "packed"

Loss = Callable[[Mapping[str, Tensor]], Tensor]
"""Parameters [tasks, …] → one loss a task [tasks]."""

Gradient = tuple[Tensor, ...]
"""A tensor [tasks, …] for each parameter, in their order."""

HessianProduct = Callable[[Sequence[Tensor]], Gradient]
"""u ↦ ∇²L u, for directions like a gradient; may be called more than once."""


class TaskLoss(Protocol):
    """A loss a task, as a function of the tasks' packed parameters [tasks, …]."""

    def pack(self, params: Mapping[str, Tensor]) -> Params:
        """Parameters, or tensors of their shapes (with or without a leading task dimension), as the other methods take them."""

    def unpack(self, params: Mapping[str, Tensor]) -> Params:
        """The inverse: tensors by name, as views."""

    def gradient(self, params: Params) -> tuple[Tensor, Gradient]:
        """The losses [tasks] and ∇L, without a graph."""

    def linearized(self, params: Params) -> tuple[Gradient, HessianProduct]:
        """∇L, and the product with the Hessian at the same place, which keeps what it needs of computing ∇L in memory."""

    def bytes_kept(self, params: Params) -> int:
        """How many bytes that is, found by trying."""


Queries = Callable[[int], TaskLoss]
"""A number of inner steps → the outer loss of the parameters that they led to."""


class Unpacked:
    """A loss of parameters that are not packed."""

    def pack(self, params: Mapping[str, Tensor]) -> Params:
        return dict(params)

    def unpack(self, params: Mapping[str, Tensor]) -> Params:
        return dict(params)


class Differentiated(Unpacked):
    """Any loss, by automatic differentiation: the gradient of ⟨∇L(θ), u⟩ by θ is the Hessian's product with u.

    moving: names of the parameters that it is taken as a function of; gradients by others are left out as zeros, and so are
    products' directions; products themselves are by all parameters.
    """

    def __init__(self, loss: Loss, moving: Collection[str] | None = None):
        self._loss, self._moving = loss, moving

    @torch.enable_grad()
    def gradient(self, params: Params) -> tuple[Tensor, Gradient]:
        leaves = _leaves(params)
        losses = self._loss(leaves)
        return losses.detach(), self._of_moving(losses, leaves, create_graph=False)

    def _of_moving(self, losses: Tensor, leaves: Params, create_graph: bool) -> Gradient:
        moving = {name: value for name, value in leaves.items() if self._moving is None or name in self._moving}
        # The gradient by a parameter that the loss doesn't use is zero.
        gradient = torch.autograd.grad(losses.sum(), list(moving.values()), create_graph=create_graph, materialize_grads=True)
        found = dict(zip(moving, gradient, strict=True))
        return tuple(found[name] if name in found else torch.zeros_like(value) for name, value in leaves.items())

    @torch.enable_grad()
    def linearized(self, params: Params) -> tuple[Gradient, HessianProduct]:
        leaves = _leaves(params)
        gradient = self._of_moving(self._loss(leaves), leaves, create_graph=True)

        def product(direction: Sequence[Tensor]) -> Gradient:
            # those of a linear loss are constant
            curved = [(g, u) for g, u in zip(gradient, direction, strict=True) if g.requires_grad]
            if not curved:
                return tuple(map(torch.zeros_like, direction))
            outputs, upper = zip(*curved, strict=True)
            return torch.autograd.grad(
                outputs, list(leaves.values()), grad_outputs=upper, retain_graph=True, materialize_grads=True
            )

        return tuple(g.detach() for g in gradient), product

    def bytes_kept(self, params: Params) -> int:
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()  # for a view, the storage may be larger but is kept anyway
            place = storage.data_ptr()
            kept[place] = max(kept.get(place, 0), min(tensor.nbytes, storage.nbytes()))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            linearization = self.linearized(params)
        del linearization
        return sum(kept.values())


class Compiled(Unpacked):
    """Like `Differentiated`, by functions that torch.compile compiled: one for the gradient, one for products with the Hessian."""

    def __init__(self, functions: "CompiledFunctions", data: tuple[Tensor | None, ...]):
        self._functions, self._data = functions, data

    def gradient(self, params: Params) -> tuple[Tensor, Gradient]:
        return self._functions.gradient(params, self._data)

    def linearized(self, params: Params) -> tuple[Gradient, HessianProduct]:
        return self.gradient(params)[1], lambda direction: self._functions.product(params, direction, self._data)

    def bytes_kept(self, params: Params) -> int:  # noqa: ARG002 - a product goes to the gradient and back once more
        return 0


class CompiledFunctions:
    """The two functions of a loss (parameters, data) → [tasks]. However many inner steps call them, they are compiled once.

    If compilation fails, one line says so and they run uncompiled.
    """

    def __init__(self, loss: Callable[..., Tensor], graphs: bool):
        def gradient(params: Params, data: tuple[Tensor | None, ...]) -> tuple[Tensor, Gradient]:
            return Differentiated(lambda theta: loss(theta, *data)).gradient(params)

        def product(params: Params, direction: Sequence[Tensor], data: tuple[Tensor | None, ...]) -> Gradient:
            return Differentiated(lambda theta: loss(theta, *data)).linearized(params)[1](direction)

        self._graphs, self._failed, self._lock = graphs, False, Lock()
        self.gradient, self.product = self._compiled(gradient), self._compiled(product)

    def _compiled(self, function: Callable[..., Result]) -> Callable[..., Result]:
        """Runs the compiled function until a compilation fails in any thread; then all run the function itself."""
        import torch._dynamo  # takes a second, so imported only if needed

        run = torch.compile(function, mode="reduce-overhead" if self._graphs else None)

        def call(*arguments: Any) -> Result:
            if not self._failed:
                try:
                    torch._dynamo.config.trace_autograd_ops = True  # trace torch.autograd.grad instead of giving up on it
                    return run(*arguments)
                except Exception as error:
                    self._give_up(error)
            return function(*arguments)

        return call

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            if not self._failed:
                reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
                sys.stderr.write(f"training continues without compilation, more slowly: {reason[0]}\n")
            self._failed = True


class SquaredErrorMLP:
    """The squared error of a small fully connected network, by compiled loops over tasks (`kernels`).

    x [tasks, examples, …], y [tasks, examples, outputs]; share [tasks, examples]: of each example in its task's mean, none where
    all are alike; factor: of the mean.
    Parameters are packed into one tensor [tasks, all of them], so that each operation on them is a single one.
    """

    def __init__(self, network: MLP, x: Tensor, y: Tensor, share: Tensor | None, factor: float):
        weights = None if share is None else factor * share
        self._network = network
        self._loops = kernels.SquaredErrorLoops(network.widths, x.flatten(2), y, weights, factor / x.shape[1])

    @cached_property
    def _work(self) -> Tensor:
        return self._loops.work()

    @staticmethod
    def fits(network: object, x: Tensor, y: Tensor) -> bool:
        """Whether such a network and such data can be computed here."""
        return isinstance(network, MLP) and network.small and kernels.usable(x, y)

    def pack(self, params: Mapping[str, Tensor]) -> Params:
        ordered = [params[name] for name in self._network.shapes]
        leading = ordered[0].dim() - 2  # weights and biases have two dimensions
        return {_PACKED: torch.cat([value.flatten(leading) for value in ordered], -1) if leading else joined(ordered)}

    def unpack(self, params: Mapping[str, Tensor]) -> Params:
        return self._network.unpack(params[_PACKED])

    def gradient(self, params: Params) -> tuple[Tensor, Gradient]:
        losses, found = self._loops.gradient(params[_PACKED], self._work)
        return losses, (found,)

    def linearized(self, params: Params) -> tuple[Gradient, HessianProduct]:
        theta, work = params[_PACKED], self._loops.work()
        _, gradient = self._loops.gradient(theta, work)
        return (gradient,), lambda direction: (self._loops.product(theta, direction[0], work),)

    def bytes_kept(self, params: Params) -> int:  # noqa: ARG002
        return self._work.nbytes

    def exact(self, query: "SquaredErrorMLP", params: Params, lr: float, steps: int) -> tuple[Tensor, Gradient]:
        """The queries' losses after gradient descent, and the sum [1, …] of their exact gradients by its start: the recursion
        as one loop."""
        losses, total = self._loops.exact(query._loops, params[_PACKED], lr, steps)
        return losses, (total,)


def _leaves(params: Params) -> Params:
    return {name: value.detach().requires_grad_() for name, value in params.items()}
