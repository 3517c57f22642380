"""The kernel of a Gaussian process on features, and the density of a task's rows under it with its derivatives by the kernel's own
parameters ψ.

ψ are the logarithms of the noise's standard deviation σ, of the output scale s, and of the length scale ℓ of the RBF kernel:

    A = s² E + σ² I,   E_ij = exp(−‖φ_i − φ_j‖² / 2ℓ²)  or  φ_i · φ_j       (features divided by √width)

Rows of weight w have the noise σ²/w: with r and E multiplied by the roots of the weights that is the same A, and rows of weight 0
get a 1 on the diagonal and are out.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metaopt_core.meta.heads.algebra import log_density, solve

Kind = Literal["rbf", "linear"]
Psi = Tensor
"""[tasks, …] or [1, …]: log σ, log s and, of the RBF kernel, log ℓ."""


@dataclass(frozen=True)
class Kernel:
    """kind: RBF, or linear."""

    kind: Kind

    @property
    def parameters(self) -> int:
        """How many there are in ψ."""
        return 3 if self.kind == "rbf" else 2

    def base(self, one: Tensor, other: Tensor) -> Tensor:
        """What the kernel is a function of: squared distances, or products [tasks, n, m], of features [tasks, n or m, width]."""
        width = one.shape[2]
        products = one @ other.mT / width
        if self.kind == "linear":
            return products
        squares = (x.square().sum(2) / width for x in (one, other))
        return (next(squares)[:, :, None] + next(squares)[:, None] - 2 * products).clamp(min=0)

    def of(self, psi: Psi, base: Tensor) -> Tensor:
        """s² E [tasks, n, m]"""
        noise, scale, *length = _each(psi)
        del noise
        return (2 * scale).exp() * (base if self.kind == "linear" else (-base / 2 * (-2 * length[0]).exp()).exp())

    def variance(self, psi: Psi, features: Tensor) -> Tensor:
        """The prior variance of the function at features [tasks, n, width]: [tasks, n]"""
        scale = (2 * psi[:, 1:2]).exp()
        return scale.expand(features.shape[:2]) if self.kind == "rbf" else scale * features.square().mean(2)


@dataclass(frozen=True)
class Observed:
    """The rows of tasks as a Gaussian process sees them. base: `Kernel.base` among them; residual [tasks, n, outputs], of the prior
    mean; weight [tasks, n, 1]."""

    kernel: Kernel
    base: Tensor
    residual: Tensor
    weight: Tensor

    @property
    def root(self) -> Tensor:
        return self.weight.sqrt()

    def explained(self, psi: Psi) -> Tensor:
        """s² E by the roots of the weights."""
        return self.kernel.of(psi, self.base) * (self.root * self.root.mT)

    def covariance(self, psi: Psi) -> Tensor:
        """A [tasks, n, n]"""
        kept = (self.weight[..., 0] > 0).to(self.base.dtype)
        return self.explained(psi) + torch.diag_embed((2 * psi[:, :1]).exp() * kept + (1 - kept))

    def log_likelihood(self, psi: Psi) -> Tensor:
        """The log marginal likelihood of each task's rows, all outputs together [tasks], without the constant of each row."""
        of_weights = self.weight.where(self.weight > 0, 1).log().sum((1, 2)) / 2
        return log_density(self.covariance(psi), self.root * self.residual) + self.residual.shape[2] * of_weights

    def gradient(self, psi: Psi) -> Tensor:
        """Of the negative log marginal likelihood by ψ [tasks, parameters]; differentiable by everything else."""
        covariance = self.covariance(psi)
        inverse = solve(covariance, _identity_like(covariance))
        alpha = inverse @ (self.root * self.residual)
        by_covariance = (self.residual.shape[2] * inverse - alpha @ alpha.mT) / 2
        return torch.stack([(by_covariance * first).sum((1, 2)) for first in self._first(psi)], 1)

    def fitted(self, psi: Psi) -> tuple[Tensor, Tensor, Tensor]:
        """The negative log marginal likelihood [tasks], its gradient [tasks, p] and Hessian [tasks, p, p] by ψ."""
        covariance, outputs = self.covariance(psi), self.residual.shape[2]
        inverse = solve(covariance, _identity_like(covariance))
        alpha = inverse @ (self.root * self.residual)
        first, second = self._first(psi), self._second(psi)
        turned = [inverse @ one for one in first]
        applied = [one @ alpha for one in first]
        outer = alpha @ alpha.mT
        gradient = torch.stack([((outputs * inverse - outer) * one).sum((1, 2)) / 2 for one in first], 1)
        hessian = gradient.new_zeros(*gradient.shape, gradient.shape[1])
        for i in range(len(first)):
            for j in range(i + 1):
                traces = -(turned[i] * turned[j].mT).sum((1, 2)) + (inverse * second[i][j]).sum((1, 2))
                value = (
                    outputs * traces / 2
                    + (applied[i] * (inverse @ applied[j])).sum((1, 2))
                    - (outer * second[i][j]).sum((1, 2)) / 2
                )
                hessian[:, i, j] = hessian[:, j, i] = value
        return -log_density(covariance, self.root * self.residual), gradient, hessian

    def _first(self, psi: Psi) -> list[Tensor]:
        """∂A/∂ψ_i"""
        explained = self.explained(psi)
        found = [2 * self._noise(psi), 2 * explained]
        return found if self.kernel.kind == "linear" else [*found, explained * self._by_length(psi)]

    def _second(self, psi: Psi) -> list[list[Tensor]]:
        """∂²A/∂ψ_i∂ψ_j, j ≤ i"""
        explained, none = self.explained(psi), torch.zeros_like(self.base)
        found = [[4 * self._noise(psi)], [none, 4 * explained]]
        if self.kernel.kind == "linear":
            return found
        q = self._by_length(psi)
        return [*found, [none, 2 * explained * q, explained * (q * q - 2 * q)]]

    def _noise(self, psi: Psi) -> Tensor:
        return torch.diag_embed((2 * psi[:, :1]).exp() * (self.weight[..., 0] > 0))

    def _by_length(self, psi: Psi) -> Tensor:
        return self.base * (-2 * psi[:, 2]).exp().view(-1, 1, 1)


def _each(psi: Psi) -> tuple[Tensor, ...]:
    return tuple(one.view(-1, 1, 1) for one in psi.unbind(1))


def _identity_like(a: Tensor) -> Tensor:
    return torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a)
