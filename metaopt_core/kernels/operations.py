"""The operations of kernels.c as functions of tensors, each of which is checked before C reads it.

All tensors are on the CPU and of one type, float32 or float64. Pictures are [tasks, examples, height, width, channels].
"""

import math
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from metaopt_core.kernels.compiled import call


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Convolution with 3×3 filters, stride 2 and padding 1: [tasks, examples, ⌈h/2⌉, ⌈w/2⌉, filters].

    x [tasks, examples, h, w, channels]; weight [tasks, 3, 3, channels, filters].
    """
    shape, filters = _pictures(x), weight.shape[-1]
    stored, shared = _stored(weight, (shape[0], 3, 3, shape[-1], filters), x)
    y = x.new_empty(_halved(shape, filters))
    zeros = _zeros(max(filters, shape[-1]), x.dtype)
    call("convolve", x.dtype, x.contiguous(), stored, zeros, y, shape[0], shared, *shape[1:], filters)
    return y


def convolve_input_gradient(grad: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
    """The gradient by x, which has this shape, from the gradient by y."""
    tasks, channels, filters = shape[0], shape[-1], weight.shape[-1]
    _expect("the gradient by y", grad, _halved(shape, filters), grad)
    stored, shared = _stored(weight, (tasks, 3, 3, channels, filters), grad)
    by_x, scratch = grad.new_empty(shape), grad.new_empty(9 * channels * filters)
    zeros = _zeros(max(filters, channels), grad.dtype)
    call("convolve_input_gradient", grad.dtype, grad.contiguous(), stored, zeros, by_x, scratch, tasks, shared, *shape[1:], filters)
    return by_x


def convolve_weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient by the weight from the gradient by y: [tasks, 3, 3, channels, filters]."""
    shape, filters = _pictures(x), grad.shape[-1]
    _expect("the gradient by y", grad, _halved(shape, filters), x)
    tasks, channels, rows = shape[0], shape[-1], grad.shape[1] * grad.shape[2] * grad.shape[3]
    by_weight = x.new_empty(tasks, 3, 3, channels, filters)
    pointers, scratch = torch.empty(9 * rows, dtype=torch.int64), x.new_empty(9 * rows * min(channels, 6))
    inputs = x.contiguous(), grad.contiguous(), _zeros(max(filters, channels), x.dtype)
    call("convolve_weight_gradient", x.dtype, *inputs, by_weight, pointers, scratch, *shape, filters)
    return by_weight


class Normal(NamedTuple):
    """What the derivatives of normalization with ReLU need from the forward pass."""

    x: Tensor  # [tasks, …, channels]
    scale: Tensor  # [tasks, channels], like all that follow
    shift: Tensor
    mean: Tensor
    rstd: Tensor

    def checked(self) -> tuple[int, int, int]:
        """Check every tensor. Returns the numbers of tasks, rows of a task and channels."""
        if self.x.dim() < 3:
            raise ValueError(f"x has shape {list(self.x.shape)}: expected [tasks, …, channels]")
        tasks, channels = self.x.shape[0], self.x.shape[-1]
        _expect("x", self.x, self.x.shape, self.x, contiguous=True)
        for name, value in zip(self._fields[1:], self[1:], strict=True):
            _expect(name, value, (tasks, channels), self.x, contiguous=True)
        return tasks, math.prod(self.x.shape[1:-1]), channels


def norm_relu(x: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> tuple[Tensor, Normal]:
    """Batch norm by the statistics of x over all but tasks and channels, then ReLU; x [tasks, …, channels], scale and shift [tasks,
    channels]."""
    x, scale, shift = x.contiguous(), scale.contiguous(), shift.contiguous()
    y, made = torch.empty_like(x), Normal(x, scale, shift, torch.empty_like(scale), torch.empty_like(scale))
    call("norm_relu", x.dtype, x, scale, shift, y, made.mean, made.rstd, *made.checked(), epsilon)
    return y, made


def norm_relu_gradient(grad: Tensor, at: Normal) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by x, scale and shift from the gradient by y."""
    sizes = at.checked()
    _expect("the gradient by y", grad, at.x.shape, at.x)
    by_x, by_scale, by_shift = torch.empty_like(at.x), torch.empty_like(at.scale), torch.empty_like(at.scale)
    call("norm_relu_backward", at.x.dtype, grad.contiguous(), *at, by_x, by_scale, by_shift, *sizes)
    return by_x, by_scale, by_shift


def norm_relu_second(a: Tensor, b: Tensor, c: Tensor, grad: Tensor, at: Normal) -> tuple[Tensor, Tensor, Tensor]:
    """The derivatives of ⟨a, by_x⟩ + ⟨b, by_scale⟩ + ⟨c, by_shift⟩ of `norm_relu_gradient` by grad, x and scale."""
    sizes = at.checked()
    for name, value, like in (("a", a, at.x), ("the gradient by y", grad, at.x), ("b", b, at.scale), ("c", c, at.scale)):
        _expect(name, value, like.shape, at.x)
    by_grad, by_x, by_scale = torch.empty_like(at.x), torch.empty_like(at.x), torch.empty_like(at.scale)
    inputs = (value.contiguous() for value in (a, b, c, grad))
    call("norm_relu_double_backward", at.x.dtype, *inputs, *at, by_grad, by_x, by_scale, *sizes)
    return by_grad, by_x, by_scale


class SquaredErrorLoops:
    """The squared error of a fully connected network with ReLU on the examples of each task, by one loop over tasks.

    widths: units from the input to the output; x [tasks, examples, widths[0]]; y [tasks, examples, widths[-1]]; weights [tasks,
    examples] of the examples, or none for `uniform` weights. All are checked once, here; parameters are checked at each call.

    Parameters are one tensor [tasks, number of parameters]: for each layer the weight [inputs, units], then the bias.
    """

    def __init__(self, widths: tuple[int, ...], x: Tensor, y: Tensor, weights: Tensor | None, uniform: float):
        if x.dim() != 3:
            raise ValueError(f"the inputs have shape {list(x.shape)}: expected [tasks, examples, {widths[0]}]")
        tasks, examples = self.tasks, self.examples = x.shape[0], x.shape[1]
        _expect("the inputs", x, (tasks, examples, widths[0]), x)
        _expect("the targets", y, (tasks, examples, widths[-1]), x)
        if weights is not None:
            _expect("the weights of the examples", weights, (tasks, examples), x)
            weights = weights.contiguous()
        self.widths, self._uniform = widths, uniform
        self._x, self._y, self._weights = x.contiguous(), y.contiguous(), weights
        self._sizes = _sizes(widths)
        self._layers, self._work_size = (len(widths) - 1, self._sizes.widths), self._work_of(tasks)

    def work(self) -> Tensor:
        """Working memory for `gradient`, in which it leaves what `product` at the same parameters reads."""
        return self._x.new_empty(self._work_size)

    def gradient(self, theta: Tensor, work: Tensor) -> tuple[Tensor, Tensor]:
        """The losses [tasks] and their gradients like theta."""
        theta, stride = self._parameters(theta)
        _expect("work", work, (self._work_size,), self._x, contiguous=True)
        losses, found = theta.new_empty(self.tasks), theta.new_empty(theta.shape)
        data = self._uniform, self._x, self._y, self._weights
        self._call("mlp_gradient", *data, theta, stride, losses, found, work, self._pointers(self.examples))
        return losses, found

    def product(self, theta: Tensor, direction: Tensor, work: Tensor) -> Tensor:
        """The Hessian's product with a direction like theta, at the theta of the last `gradient` with this `work`."""
        theta, stride = self._parameters(theta)
        _expect("the direction", direction, theta.shape, self._x)
        _expect("work", work, (self._work_size,), self._x, contiguous=True)
        found, data = theta.new_empty(theta.shape), (self._uniform, self._x, self._weights)
        pointers = self._pointers(2 * self.examples)
        self._call("mlp_product", *data, theta, stride, direction.contiguous(), found, work, pointers)
        return found

    def exact(self, query: "SquaredErrorLoops", theta: Tensor, lr: float, steps: int) -> tuple[Tensor, Tensor]:
        """The queries' losses [tasks] after `steps` steps of gradient descent, and the sum [1, …] of their exact gradients by the
        starting point."""
        if (query.tasks, query.widths, query._x.dtype) != (self.tasks, self.widths, self._x.dtype):
            raise ValueError(
                f"support sets of {self.tasks} tasks for a network of {self.widths} in {self._x.dtype}, query sets of "
                f"{query.tasks} for {query.widths} in {query._x.dtype}: expected the same"
            )
        theta, stride = self._parameters(theta)
        losses, total = theta.new_empty(self.tasks), theta.new_zeros(1, theta.shape[1])
        size = (steps + 4) * theta.shape[1] + steps * self._work_of(1) + query._work_of(1)
        data = [value for one in (self, query) for value in (one.examples, one._uniform, one._x, one._y, one._weights)]
        where = theta, stride, losses, total, theta.new_empty(size), self._pointers(2 * max(self.examples, query.examples))
        call("mlp_exact", theta.dtype, self.tasks, steps, *self._layers, lr, *data, *where)
        return losses, total

    def _work_of(self, tasks: int) -> int:
        return 2 * (tasks + 1) * self.examples * self._sizes.units + 2 * self._sizes.weights

    def _call(self, name: str, *arguments: Tensor | float | None) -> None:
        call(name, self._x.dtype, self.tasks, self.examples, *self._layers, *arguments)

    def _parameters(self, theta: Tensor) -> tuple[Tensor, int]:
        """The parameters as the loops read them, and their stride from one task to the next: 0 if all tasks share them."""
        _expect("the parameters", theta, (self.tasks, self._sizes.parameters), self._x)
        if theta.stride(0) == 0 and theta.stride(1) == 1:
            return theta, 0
        return theta.contiguous(), theta.shape[1]

    def _pointers(self, count: int) -> Tensor:
        return torch.empty(count, dtype=torch.int64)


class _Sizes(NamedTuple):
    """widths: as C reads them. units: numbers in all layers' inputs and outputs. weights: in all matrices. parameters: in all."""

    widths: Tensor
    units: int
    weights: int
    parameters: int


@cache
def _sizes(widths: tuple[int, ...]) -> _Sizes:
    weights = sum(inputs * units for inputs, units in pairwise(widths))
    return _Sizes(torch.tensor(widths, dtype=torch.int64), sum(widths), weights, weights + sum(widths[1:]))


def _pictures(x: Tensor) -> torch.Size:
    if x.dim() != 5:
        raise ValueError(f"the pictures have shape {list(x.shape)}: expected [tasks, examples, height, width, channels]")
    _expect("the pictures", x, x.shape, x)
    return x.shape


def _halved(shape: torch.Size, filters: int) -> tuple[int, ...]:
    tasks, examples, height, width, _ = shape
    return tasks, examples, (height + 1) // 2, (width + 1) // 2, filters


def _stored(weight: Tensor, shape: tuple[int, ...], like: Tensor) -> tuple[Tensor, bool]:
    """The stored weights of the tasks, and whether all tasks share them."""
    _expect("the filters", weight, shape, like)
    shared = weight.stride(0) == 0
    return (weight[:1] if shared else weight).contiguous(), shared


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...], like: Tensor, contiguous: bool = False) -> None:
    """Raises ValueError unless a tensor has the shape, dtype and layout that the C code assumes."""
    fits = tensor.shape == shape and tensor.dtype == like.dtype and tensor.is_cpu and not tensor.is_neg()
    if fits and (not contiguous or tensor.is_contiguous()):
        return
    stored = "" if tensor.is_contiguous() else ", not contiguous"
    expected = f"{list(shape)} of {like.dtype} on the CPU{', contiguous' if contiguous else ''}"
    raise ValueError(f"{name}: found {list(tensor.shape)} of {tensor.dtype} on {tensor.device}{stored}: expected {expected}")


@cache
def _zeros(count: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(count, dtype=dtype)
