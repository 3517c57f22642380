"""A convolution closed under differentiation.

A convolution is bilinear in its input and its weight, so the convolution, its gradient by the input and its gradient by the weight
are each other's derivatives. Written as three autograd functions over the native kernels, derivatives of any order run at native
speed; autograd's own second derivative of a grouped convolution loops over the groups.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


@dataclass(frozen=True)
class _Geometry:
    input: torch.Size
    weight: torch.Size
    stride: int
    padding: int
    groups: int

    def backward(self, grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        by_input, by_weight, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, [self.stride] * 2, [self.padding] * 2, [1, 1], False, [0, 0], self.groups, [*wanted, False]
        )
        return by_input, by_weight


def convolve(x: Tensor, weight: Tensor, stride: int, padding: int, groups: int) -> Tensor:
    """Two-dimensional convolution of x [n, groups · c, h, w] with weight [groups · k, c, r, s]: [n, groups · k, h', w']."""
    output: Tensor = _Convolution.apply(x, weight, _Geometry(x.shape, weight.shape, stride, padding, groups))
    return output


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return torch.conv2d(x, weight, None, geometry.stride, geometry.padding, 1, geometry.groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        by_input = _InputGradient.apply(grad, weight, ctx.geometry) if wanted[0] else None
        by_weight = _WeightGradient.apply(x, grad, ctx.geometry) if wanted[1] else None
        return by_input, by_weight, None


class _InputGradient(Function):
    """The gradient by the input as a function of (gradient by the output, weight)."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(grad, weight)
        ctx.geometry = geometry
        anything = grad.new_empty(1).expand(geometry.input)  # the input's values don't matter here, only its shape
        by_input, _ = geometry.backward(grad, anything, weight, (True, False))
        assert by_input is not None
        return by_input

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        grad, weight = ctx.saved_tensors
        geometry = ctx.geometry
        wanted = ctx.needs_input_grad
        by_grad = _Convolution.apply(upper, weight, geometry) if wanted[0] else None
        by_weight = _WeightGradient.apply(upper, grad, geometry) if wanted[1] else None
        return by_grad, by_weight, None


class _WeightGradient(Function):
    """The gradient by the weight as a function of (input, gradient by the output)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(x, grad)
        ctx.geometry = geometry
        anything = grad.new_empty(1).expand(geometry.weight)
        _, by_weight = geometry.backward(grad, x, anything, (False, True))
        assert by_weight is not None
        return by_weight

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, grad = ctx.saved_tensors
        geometry = ctx.geometry
        wanted = ctx.needs_input_grad
        by_x = _InputGradient.apply(grad, upper, geometry) if wanted[0] else None
        by_grad = _Convolution.apply(x, upper, geometry) if wanted[1] else None
        return by_x, by_grad, None
