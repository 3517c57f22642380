"""Symmetric positive definite systems of each task, with derivatives of their own: those of a factorization take several times as
long."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def solve(a: Tensor, b: Tensor) -> Tensor:
    """x with a x = b: a [tasks, n, n], symmetric and positive definite, b and x [tasks, n, m]. Not a number where a is not."""
    return _Solve.apply(a, b)  # type: ignore[no-any-return]


def log_density(a: Tensor, r: Tensor) -> Tensor:
    """The log density of a task's columns r [tasks, n, m] under a normal distribution of mean 0 and covariance a [tasks, n, n],
    summed over columns: [tasks]; without the constant n/2 log 2π of each."""
    return _LogDensity.apply(a, r)  # type: ignore[no-any-return]


def factor(a: Tensor) -> Tensor:
    """The lower Cholesky factor; not a number where there is none."""
    found, failed = torch.linalg.cholesky_ex(a)
    return torch.where((failed > 0).view(-1, 1, 1), math.nan, found)


class _Solve(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        x = torch.cholesky_solve(b, factor(a))
        ctx.save_for_backward(a, x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, x = ctx.saved_tensors
        by_b = solve(a, grad)
        return -by_b @ x.mT, by_b


class _LogDensity(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, r: Tensor) -> Tensor:
        lower = factor(a)
        solved = torch.cholesky_solve(r, lower)
        half_log_determinant = lower.diagonal(dim1=1, dim2=2).log().sum(1)
        ctx.save_for_backward(lower, solved)
        return -(r * solved).sum((1, 2)) / 2 - r.shape[2] * half_log_determinant

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        lower, solved = ctx.saved_tensors
        inverse = torch.cholesky_inverse(lower)
        by_a = (solved @ solved.mT - solved.shape[2] * inverse) / 2
        return grad.view(-1, 1, 1) * by_a, -grad.view(-1, 1, 1) * solved
