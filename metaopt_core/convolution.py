"""The pieces of a convolutional block, for tasks that each have weights of their own, closed under differentiation.

Pictures lie as [tasks, examples, height, width, channels]. On a CPU, convolution and its two gradients, which are each other's
derivatives, are compiled loops (`kernels`), and so is normalization with ReLU, with a first and a second derivative of its own.
Elsewhere they are PyTorch's operations: a batched matrix product of patches with weights, and elementary ones.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from metaopt_core import kernels


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Convolution with 3×3 filters, stride 2 and padding 1.

    x [tasks, examples, h, w, c] with weight [tasks, 3, 3, c, k]: [tasks, examples, ⌈h/2⌉, ⌈w/2⌉, k].
    """
    if kernels.usable(x, weight):
        return _Convolution.apply(x, weight, x.shape)  # type: ignore[no-any-return]
    tasks, examples, height, width, channels = x.shape
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    patches = torch.stack([padded[:, :, r : r + height : 2, s : s + width : 2] for r in range(3) for s in range(3)], 4)
    product = torch.bmm(patches.view(tasks, -1, 9 * channels), weight.reshape(tasks, 9 * channels, -1))
    return product.view(tasks, examples, (height + 1) // 2, (width + 1) // 2, -1)


def norm_relu(x: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> Tensor:
    """Batch norm by the statistics of x over a task's examples and positions, then ReLU.

    x [tasks, examples, h, w, c]; scale and shift [tasks, c]. Twice differentiable on a CPU, any number of times elsewhere.
    """
    rows = x.flatten(1, 3)
    if kernels.usable(x, scale, shift):
        y: Tensor = _NormReLU.apply(rows.contiguous(), scale.contiguous(), shift.contiguous(), epsilon)
        return y.view(x.shape)
    variance, mean = torch.var_mean(rows, 1, correction=0, keepdim=True)
    normal = (rows - mean) * (variance + epsilon).rsqrt()
    return torch.addcmul(shift[:, None], normal, scale[:, None]).relu().view(x.shape)


class _Convolution(Function):
    """(x, weight) → y; `shape` is x's throughout. Bilinear, so it and its two gradients are each other's derivatives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shape = shape
        tasks, examples, height, width, _ = shape
        filters, (stored, shared) = weight.shape[-1], _stored(weight)
        y = x.new_empty(tasks, examples, (height + 1) // 2, (width + 1) // 2, filters)
        kernels.call("convolve", x.contiguous(), stored, _zeros(x, filters), y, tasks, shared, *shape[1:], filters)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        by_x = _InputGradient.apply(grad, weight, ctx.shape) if ctx.needs_input_grad[0] else None
        by_weight = _WeightGradient.apply(x, grad, ctx.shape) if ctx.needs_input_grad[1] else None
        return by_x, by_weight, None


class _InputGradient(Function):
    """(gradient by y, weight) → gradient by x"""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grad, weight)
        ctx.shape = shape
        filters, (stored, shared) = weight.shape[-1], _stored(weight)
        by_x, scratch = grad.new_empty(shape), grad.new_empty(9 * shape[-1] * filters)
        grad_zeros = grad.contiguous(), stored, _zeros(grad, filters)
        kernels.call("convolve_input_gradient", *grad_zeros, by_x, scratch, shape[0], shared, *shape[1:], filters)
        return by_x

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        grad, weight = ctx.saved_tensors
        by_grad = _Convolution.apply(upper, weight, ctx.shape) if ctx.needs_input_grad[0] else None
        by_weight = _WeightGradient.apply(upper, grad, ctx.shape) if ctx.needs_input_grad[1] else None
        return by_grad, by_weight, None


class _WeightGradient(Function):
    """(x, gradient by y) → gradient by weight"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(x, grad)
        ctx.shape = shape
        filters, rows = grad.shape[-1], grad[0, ..., 0].numel()
        by_weight = x.new_empty(shape[0], 3, 3, shape[-1], filters)
        pointers, scratch = torch.empty(9 * rows, dtype=torch.int64), x.new_empty(9 * rows * min(shape[-1], 6))
        inputs = x.contiguous(), grad.contiguous(), _zeros(x, filters)
        kernels.call("convolve_weight_gradient", *inputs, by_weight, pointers, scratch, *shape, filters)
        return by_weight

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, grad = ctx.saved_tensors
        by_x = _InputGradient.apply(grad, upper, ctx.shape) if ctx.needs_input_grad[0] else None
        by_grad = _Convolution.apply(x, upper, ctx.shape) if ctx.needs_input_grad[1] else None
        return by_x, by_grad, None


def _stored(weight: Tensor) -> tuple[Tensor, bool]:
    """What lies in memory of the tasks' weights, and whether all tasks share it."""
    shared = weight.stride(0) == 0
    return (weight[:1] if shared else weight).contiguous(), shared


def _zeros(like: Tensor, filters: int) -> Tensor:
    return like.new_zeros(max(filters, like.shape[-1]))


class _NormReLU(Function):
    """x [tasks, rows, channels], scale and shift [tasks, channels] → y like x"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> Tensor:
        y, mean, rstd = torch.empty_like(x), torch.empty_like(scale), torch.empty_like(scale)
        kernels.call("norm_relu", x, scale, shift, y, mean, rstd, *x.shape, epsilon)
        ctx.save_for_backward(x, scale, y, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        return *_NormReLUGradient.apply(grad.contiguous(), *ctx.saved_tensors), None


class _NormReLUGradient(Function):
    """The gradients of `_NormReLU` by x, scale and shift, as a function of the one by y and of x and scale."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, x: Tensor, scale: Tensor, y: Tensor, mean: Tensor, rstd: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        by_x, by_scale, by_shift = torch.empty_like(x), torch.empty_like(scale), torch.empty_like(scale)
        kernels.call("norm_relu_backward", grad, x, y, scale, mean, rstd, by_x, by_scale, by_shift, *x.shape)
        ctx.save_for_backward(grad, x, scale, y, mean, rstd)
        return by_x, by_scale, by_shift

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        grad, x, scale, y, mean, rstd = ctx.saved_tensors
        by_grad, by_x, by_scale = torch.empty_like(x), torch.empty_like(x), torch.empty_like(scale)
        upstream = a.contiguous(), b.contiguous(), c.contiguous()
        kernels.call("norm_relu_double_backward", *upstream, grad, x, y, scale, mean, rstd, by_grad, by_x, by_scale, *x.shape)
        return by_grad, by_x, by_scale, None, None, None
