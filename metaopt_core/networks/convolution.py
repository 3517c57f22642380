"""The pieces of a convolutional block, for tasks that each have their own weights, closed under differentiation.

Pictures are stored as [tasks, examples, height, width, channels]. On a CPU, convolution and its two gradients, which are each
other's derivatives, are compiled loops (`kernels`), and so is normalization with ReLU, with its own first and second derivative.
Elsewhere they are PyTorch's operations: a batched matrix product of patches with weights, and elementwise ones. With stride 1, a
CPU uses PyTorch's grouped convolution.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from metaopt_core import kernels


def convolve(x: Tensor, weight: Tensor, stride: int = 2) -> Tensor:
    """Convolution with 3×3 filters, stride 1 or 2 and padding 1.

    x [tasks, examples, h, w, c] with weight [tasks, 3, 3, c, k], or [1, …] of all tasks: [tasks, examples, ⌈h/stride⌉,
    ⌈w/stride⌉, k].
    """
    if len(weight) < len(x):
        y = convolve(x.flatten(0, 1)[None], weight, stride)
        return y.view(*x.shape[:2], *y.shape[2:])
    if stride == 2 and kernels.usable(x, weight):
        return _Convolution.apply(x, weight, x.shape)  # type: ignore[no-any-return]
    if stride == 1 and x.device.type == "cpu":
        filters = weight.permute(0, 4, 3, 1, 2).flatten(0, 1)  # [tasks · k, c, 3, 3]
        grouped: Tensor = _Grouped.apply(_folded(x), filters.contiguous(memory_format=torch.channels_last))
        return grouped.view(len(grouped), len(x), -1, *grouped.shape[2:]).permute(1, 0, 3, 4, 2)
    return _product_of_patches(x, weight, stride)


def _product_of_patches(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    tasks, examples, height, width, channels = x.shape
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    patches = torch.stack([padded[:, :, r : r + height : stride, s : s + width : stride] for r in range(3) for s in range(3)], 4)
    product = torch.bmm(patches.view(tasks, -1, 9 * channels), weight.reshape(tasks, 9 * channels, -1))
    return product.view(tasks, examples, -(-height // stride), -(-width // stride), -1)


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """Convolution with 1×1 filters: x [tasks, examples, h, w, c] with weight [tasks, c, k], or [1, c, k] of all tasks: [tasks,
    examples, h, w, k]."""
    if len(weight) < len(x):
        return x @ weight[0]
    return torch.bmm(x.flatten(1, 3), weight).view(*x.shape[:-1], -1)


def max_pool(x: Tensor) -> Tensor:
    """The largest value of each 2×2 positions: [tasks, examples, h, w, c] to [tasks, examples, ⌊h/2⌋, ⌊w/2⌋, c]."""
    pooled = F.max_pool2d(x.flatten(0, 1).permute(0, 3, 1, 2), 2)
    return pooled.permute(0, 2, 3, 1).view(*x.shape[:2], *pooled.shape[2:], -1)


def norm_relu(x: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> Tensor:
    """Batch norm by the statistics of x over a task's examples and positions, then ReLU.

    x [tasks, examples, h, w, c]; scale and shift [tasks, c], or [1, c] of all tasks. Twice differentiable on a CPU, any number of
    times elsewhere.
    """
    rows, scale, shift = x.flatten(1, 3), scale.expand(len(x), -1), shift.expand(len(x), -1)
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
        return kernels.convolve(x, weight)

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
        return kernels.convolve_input_gradient(grad, weight, shape)

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
        return kernels.convolve_weight_gradient(x, grad)

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, grad = ctx.saved_tensors
        by_x = _InputGradient.apply(grad, upper, ctx.shape) if ctx.needs_input_grad[0] else None
        by_grad = _Convolution.apply(x, upper, ctx.shape) if ctx.needs_input_grad[1] else None
        return by_x, by_grad, None


def _folded(x: Tensor) -> Tensor:
    """[tasks, examples, h, w, c] as one picture for each example, with the channels of all tasks: [examples, tasks · c, h, w]"""
    return x.permute(1, 0, 4, 2, 3).flatten(1, 2).contiguous(memory_format=torch.channels_last)


class _Grouped(Function):
    """(x, weight) → y: PyTorch's convolution with stride 1 and one group for each task, x [examples, tasks · c, h, w], weight
    [tasks · k, c, 3, 3]. PyTorch's own second derivative of it loops over the groups; these don't."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=1, groups=x.shape[1] // weight.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        by_x = _GroupedInputGradient.apply(grad, weight, x) if ctx.needs_input_grad[0] else None
        by_weight = _GroupedWeightGradient.apply(x, grad, weight) if ctx.needs_input_grad[1] else None
        return by_x, by_weight


class _GroupedInputGradient(Function):
    """(gradient by y, weight) → gradient by x; `like` has x's shape."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        ctx.save_for_backward(grad, weight, like)
        return _native(grad, like, weight, [True, False, False])[0]

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        grad, weight, _ = ctx.saved_tensors
        by_grad = _Grouped.apply(upper, weight) if ctx.needs_input_grad[0] else None
        by_weight = _GroupedWeightGradient.apply(upper, grad, weight) if ctx.needs_input_grad[1] else None
        return by_grad, by_weight, None


class _GroupedWeightGradient(Function):
    """(x, gradient by y) → gradient by weight; `like` has the weight's shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor, like: Tensor) -> Tensor:
        ctx.save_for_backward(x, grad, like)
        return _native(grad, x, like, [False, True, False])[1]

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, grad, _ = ctx.saved_tensors
        by_x = _GroupedInputGradient.apply(grad, upper, x) if ctx.needs_input_grad[0] else None
        by_grad = _Grouped.apply(x, upper) if ctx.needs_input_grad[1] else None
        return by_x, by_grad, None


def _native(grad: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    strides, padding, groups = [1, 1], [1, 1], x.shape[1] // weight.shape[1]
    return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
        grad, x, weight, None, strides, padding, [1, 1], False, [0, 0], groups, wanted
    )


class _NormReLU(Function):
    """x [tasks, rows, channels], scale and shift [tasks, channels] → y like x"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> Tensor:
        y, made = kernels.norm_relu(x, scale, shift, epsilon)
        ctx.save_for_backward(*made)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        return *_NormReLUGradient.apply(grad.contiguous(), *ctx.saved_tensors), None


class _NormReLUGradient(Function):
    """The gradients of `_NormReLU` by x, scale and shift, as a function of the gradient by y and of x and scale."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, *made: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(grad, *made)
        return kernels.norm_relu_gradient(grad, kernels.Normal(*made))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None, None]:
        grad, *made = ctx.saved_tensors
        found = kernels.norm_relu_second(a, b, c, grad, kernels.Normal(*made))
        return *found, torch.zeros_like(made[2]), None, None  # the shift only moves the kink
