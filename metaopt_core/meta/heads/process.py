"""A Gaussian process on learned features.

In deep kernel transfer (DKT; Patacchiola et al. 2020) the kernel's own parameters ψ are shared, like the features. In adaptive deep
kernel fitting (ADKF; Chen, Tripp, Hernández-Lobato 2023) they are fitted to each task, and the features are learned through that
fit by the implicit function theorem.

Classification is regression on ±1, an output a class (DKT, section 4.2). The logit of a class is the logarithm of the odds that its
output is positive, by the predictive distribution; their softmax is then the probability of the class given that one output is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt_core.meta.heads.algebra import solve
from metaopt_core.meta.heads.head import PREFIX, SOLVED, Head, Loss, Rows
from metaopt_core.meta.heads.kernel import Kernel, Observed, Psi
from metaopt_core.networks.network import Params

_PSI, _FEATURES, _ALPHA, _PRECISION = (f"{SOLVED}{name}" for name in ("kernel", "features", "alpha", "precision"))

FITTING_STEPS = 20
"""Steps of Newton's method at most, in which ψ is fitted to a task."""

SPREAD = 0.1
"""Standard deviation of the prior of a task's ψ around the learned one: few rows say little about noise and scales."""

_CONVERGED = 1e-7  # largest derivative by ψ where the fit ends
_SMALLEST_CURVATURE = 1e-6


@dataclass(frozen=True)
class GaussianProcess(Head):
    """marginal: whether training maximizes the marginal likelihood of support and query rows together; else it is the
    predictive likelihood of the queries, or the cross-entropy. fitted: whether ψ is fitted to each task's support set, with a
    normal prior around the learned ψ (of standard deviation SPREAD)."""

    kernel: Kernel
    marginal: bool
    fitted: bool

    def _own(self) -> Params:
        return {f"{PREFIX}kernel": torch.tensor([[-0.7, 0.0, 0.0][: self.kernel.parameters]])}

    def solve(self, params: Mapping[str, Tensor], support: Rows) -> Params:
        observed = self._observed(params, support)
        psi = self._psi(params)
        if self.fitted:
            psi = self.fit(observed, psi)[0]
        return self._solved(observed, psi, support.features)

    def _solved(self, observed: Observed, psi: Psi, features: Tensor) -> Params:
        precision = solve(observed.covariance(psi), torch.diag_embed(observed.root[..., 0])) * observed.root
        return {
            _PSI: psi.expand(len(precision), -1),
            _FEATURES: features,
            _ALPHA: precision @ observed.residual,
            _PRECISION: precision,
        }

    def outputs(self, params: Mapping[str, Tensor], features: Tensor) -> Tensor:
        if not self.classification:
            return self._mean(params, features).to(features.dtype)
        return _log_odds(*self.predictive(params, features)).to(features.dtype)

    @property
    def predicts_distributions(self) -> bool:
        return not self.classification

    def deviation(self, params: Mapping[str, Tensor], features: Tensor) -> Tensor:
        mean, variance = self.predictive(params, features)
        return variance.sqrt().expand_as(mean).to(features.dtype)

    def predictive(self, params: Mapping[str, Tensor], features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [tasks, queries, outputs] and variance [tasks, queries, 1] of targets, noise included, in float64."""
        psi, x = params.get(_PSI), features.double()
        if psi is None:
            psi = self._psi(params)
            variance = self.kernel.variance(psi, x)
        else:
            across = self.kernel.of(psi, self.kernel.base(params[_FEATURES].double(), x))
            left = self.kernel.variance(psi, x) - (across * (params[_PRECISION] @ across)).sum(1)
            variance = left.clamp(min=0)
        return self._mean(params, features), (variance + (2 * psi[:, :1]).exp())[..., None]

    def _mean(self, params: Mapping[str, Tensor], features: Tensor) -> Tensor:
        mean, psi = self.prior(params, features), params.get(_PSI)
        if psi is not None:
            mean = mean + self.kernel.of(psi, self.kernel.base(features.double(), params[_FEATURES].double())) @ params[_ALPHA]
        return mean

    def losses(self, params: Mapping[str, Tensor], support: Rows, query: Rows, loss: Loss) -> tuple[Tensor, Mapping[str, Tensor]]:
        if self.marginal:
            return self._marginal(params, support, query).to(support.features.dtype), {}
        observed, shared = self._observed(params, support), self._psi(params)
        if not self.fitted:
            return self._judged(params, observed, shared, support, query, loss), {}
        psi, hessian, left = self.fit(observed, shared)
        psi.requires_grad_()
        losses = self._judged(params, observed, psi, support, query, loss)
        (by_psi,) = torch.autograd.grad(losses.sum(), psi, retain_graph=True)
        # ψ solves g(ψ, φ) = 0, so dψ/dφ = −H⁻¹ ∂g/∂φ (section 3.2, equation 7). H is 3×3.
        direction = solve(hessian, by_psi[..., None])[..., 0]
        correction = (direction * (observed.gradient(psi.detach()) + (psi.detach() - shared) / SPREAD**2)).sum(1).to(losses.dtype)
        return losses - (correction - correction.detach()), {"fit_residual": left}

    def fit(self, observed: Observed, shared: Psi) -> tuple[Psi, Tensor, Tensor]:
        """ψ [tasks, p] at which the marginal likelihood by its prior around a shared one is largest, the Hessian there (made
        positive definite where it is not), and the largest derivative that is left [tasks].

        Newton's method with a damping of each task's own, which rises where a step is in vain. Nothing of it is in a graph.
        """
        observed = Observed(self.kernel, observed.base.detach(), observed.residual.detach(), observed.weight)
        shared = shared.detach().expand(len(observed.base), -1)

        def at(psi: Psi) -> tuple[Tensor, Tensor, Tensor]:
            value, gradient, hessian = observed.fitted(psi)
            away = psi - shared
            curvature = torch.eye(psi.shape[1], dtype=psi.dtype, device=psi.device) / SPREAD**2
            return value + away.square().sum(1) / (2 * SPREAD**2), gradient + away / SPREAD**2, hessian + curvature

        with torch.no_grad():
            psi, damping = shared, shared.new_zeros(len(shared), 1)
            value, gradient, hessian = at(psi)
            for _ in range(FITTING_STEPS):
                going = gradient.abs().amax(1, keepdim=True) > _CONVERGED
                if psi.device.type == "cpu" and not going.any():
                    break
                curvature, axes = torch.linalg.eigh(hessian)
                step = axes @ (
                    (axes.mT @ gradient[..., None]) / (curvature.abs().clamp(min=_SMALLEST_CURVATURE) + damping)[..., None]
                )
                tried = psi - (step[..., 0] * (1 / step[..., 0].norm(dim=1, keepdim=True).clamp(min=1)))
                new = at(tried)
                better = going & (new[0] <= value)[:, None]
                psi = torch.where(better, tried, psi)
                damping = torch.where(better, damping / 10, (damping * 10).clamp(min=1e-3))
                value = torch.where(better[:, 0], new[0], value)
                gradient = torch.where(better, new[1], gradient)
                hessian = torch.where(better[..., None], new[2], hessian)
            curvature, axes = torch.linalg.eigh(hessian)
            hessian = (axes * curvature.abs().clamp(min=_SMALLEST_CURVATURE)[:, None]) @ axes.mT
            return psi.clone(), hessian, gradient.abs().amax(1)

    def _psi(self, params: Mapping[str, Tensor]) -> Psi:
        return params[f"{PREFIX}kernel"].double()

    def _observed(self, params: Mapping[str, Tensor], rows: Rows) -> Observed:
        x = rows.features.double()
        residual = self.targets(rows.y) - self.prior(params, rows.features)
        return Observed(self.kernel, self.kernel.base(x, x), residual, rows.weights())

    def _marginal(self, params: Mapping[str, Tensor], support: Rows, query: Rows) -> Tensor:
        """The negative log marginal likelihood of all of a task's rows, a row and output (DKT, equation 4)."""
        weight = torch.cat([support.weights(), query.weights()], 1)[..., 0]
        rows = Rows(torch.cat([support.features, query.features], 1), torch.cat([support.y, query.y], 1), weight)
        observed = self._observed(params, rows)
        count = (observed.weight > 0).sum((1, 2)) * observed.residual.shape[2]
        return math.log(2 * math.pi) / 2 - observed.log_likelihood(self._psi(params)) / count

    def _judged(self, params: Mapping[str, Tensor], observed: Observed, psi: Psi, support: Rows, query: Rows, loss: Loss) -> Tensor:
        """The negative log predictive density of the queries, or the loss of their classes [tasks]."""
        solved = {**params, **self._solved(observed, psi, support.features)}
        if self.classification:
            return loss(self.outputs(solved, query.features), query.y, query.weight)
        mean, variance = self.predictive(solved, query.features)
        each = ((2 * math.pi * variance).log() + (self.targets(query.y) - mean).square() / variance).mean(2) / 2
        weight = query.weights()[..., 0]
        found: Tensor = (each * weight).sum(1) / weight.sum(1)
        return found.to(query.features.dtype)


def _log_odds(mean: Tensor, variance: Tensor) -> Tensor:
    """The logarithm of the odds that a normal variable is positive."""
    z = mean / variance.sqrt()
    odds: Tensor = torch.special.log_ndtr(z) - torch.special.log_ndtr(-z)
    return odds
