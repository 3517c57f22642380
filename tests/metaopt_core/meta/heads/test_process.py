"""Gaussian processes on features, against scikit-learn's with a fixed kernel and SciPy's fit of it, task by task."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct
from sklearn.gaussian_process.kernels import Kernel as AnyKernel

from metaopt_core.meta.heads.kernel import Kernel
from metaopt_core.meta.heads.process import SPREAD, GaussianProcess
from metaopt_core.networks.network import Params
from tests.metaopt_core.meta.heads import problems

Kind = Literal["rbf", "linear"]


def head_of(
    kind: Kind = "rbf", outputs: int = 2, classes: bool = False, pooled: bool = False, **of_process: bool
) -> GaussianProcess:
    settings = {"marginal": False, "fitted": False} | of_process
    return GaussianProcess(problems.network(outputs), classes, pooled, Kernel(kind), **settings)


def independent(
    kind: Kind,
    psi: npt.NDArray[np.float64],
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    weight: npt.NDArray[np.float64],
) -> GaussianProcessRegressor:
    noise, scale, length = np.exp([*psi, 0.0][:3])
    base: AnyKernel = RBF(length, "fixed") if kind == "rbf" else DotProduct(0.0, "fixed")
    process = GaussianProcessRegressor(ConstantKernel(scale**2, "fixed") * base, alpha=noise**2 / weight, optimizer=None)
    return process.fit(x, y)


def in_numpy(head: GaussianProcess, params: Params) -> tuple[list[npt.NDArray[np.float64]], ...]:
    """Features of support and queries as the kernel takes them, and residuals of the support targets, of the rows that count."""
    batch = problems.tasks(head.network.outputs, head.classification)
    support, query = problems.rows(head, params, batch)
    width = support.features.shape[2]
    y = (2.0 * np.eye(head.network.outputs)[batch.support_y] - 1) if head.classification else batch.support_y.numpy()
    residual = y - head.prior(params, support.features).numpy()
    x = [part.features.numpy() / np.sqrt(width) for part in (support, query)]
    assert batch.support_weight is not None
    kept = [
        ([x[0][task, :n], x[1][task], residual[task, :n], batch.support_weight[task, :n].numpy()])
        for task, n in enumerate(problems.SIZES)
    ]
    return tuple([list(column) for column in zip(*kept, strict=True)])


@pytest.mark.parametrize("kind", ["rbf", "linear"])
@pytest.mark.parametrize("pooled", [False, True])
def test_means_and_deviations_are_those_of_an_independent_process_of_each_task(kind: Kind, pooled: bool) -> None:
    head = head_of(kind, pooled=pooled)
    params = problems.initial(head)
    support, query = problems.rows(head, params, problems.tasks(2))
    solved = {**params, **head.solve(params, support)}
    mean, deviation = head.outputs(solved, query.features), head.deviation(solved, query.features)
    prior, psi = head.prior(params, query.features).numpy(), params["head.kernel"][0].numpy()
    for task, (x, queries, residual, weight) in enumerate(zip(*in_numpy(head, params), strict=True)):
        expected, spread = independent(kind, psi, x, residual, weight).predict(queries, return_std=True)
        np.testing.assert_allclose(mean[task], prior[task] + expected, atol=1e-8)
        np.testing.assert_allclose(
            deviation[task], np.sqrt(spread**2 + np.exp(2 * psi[0])).reshape(5, -1)[:, :1].repeat(2, 1), atol=1e-8
        )


def test_a_class_is_as_likely_as_its_output_alone_being_positive() -> None:
    head = head_of(outputs=3, classes=True)
    params = problems.initial(head)
    support, query = problems.rows(head, params, problems.tasks(3, classes=True))
    found = head.outputs({**params, **head.solve(params, support)}, query.features).softmax(-1)
    prior, psi = head.prior(params, query.features).numpy(), params["head.kernel"][0].numpy()
    for task, (x, queries, residual, weight) in enumerate(zip(*in_numpy(head, params), strict=True)):
        mean, spread = independent("rbf", psi, x, residual, weight).predict(queries, return_std=True)
        positive = norm.cdf((prior[task] + mean) / np.sqrt(spread**2 + np.exp(2 * psi[0])))
        others = np.stack([np.prod(np.delete(1 - positive, c, 1), 1) for c in range(3)], 1)
        np.testing.assert_allclose(found[task], positive * others / (positive * others).sum(1, keepdims=True), atol=1e-8)


@pytest.mark.parametrize("kind", ["rbf", "linear"])
def test_training_descends_on_the_negative_log_marginal_likelihood_of_all_rows(kind: Kind) -> None:
    head = head_of(kind, marginal=True)
    params, batch = problems.initial(head), problems.tasks(2)
    support, query = problems.rows(head, params, batch)
    losses, _ = head.losses(params, support, query, problems.learner(head).loss)
    for task, size in enumerate(problems.SIZES):
        kept = 3 if task == 1 else 5
        x = torch.cat([support.features[task, :size], query.features[task, :kept]]).numpy() / np.sqrt(problems.WIDTH)
        y = torch.cat([batch.support_y[task, :size], batch.query_y[task, :kept]]).numpy() - params["head.mean"].numpy()
        weight = np.concatenate([batch.support_weight[task, :size].numpy(), np.ones(kept)])  # type: ignore[index]
        process = independent(kind, params["head.kernel"][0].numpy(), x, y, weight)
        likelihood = process.log_marginal_likelihood_value_
        np.testing.assert_allclose(losses[task], -likelihood / y.size, rtol=1e-8)


@pytest.mark.parametrize("kind", ["rbf", "linear"])
def test_derivatives_by_the_kernels_parameters_are_those_of_automatic_differentiation(kind: Kind) -> None:
    head = head_of(kind)
    params = problems.initial(head)
    observed = head._observed(params, problems.rows(head, params, problems.tasks(2))[0])
    psi = torch.randn(problems.TASKS, head.kernel.parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) / 2

    def value(psi: torch.Tensor) -> torch.Tensor:
        a, r = observed.covariance(psi), observed.root * observed.residual
        likelihood: torch.Tensor = -(r * torch.linalg.solve(a, r)).sum() / 2 - torch.logdet(a).sum()  # of two outputs
        return -likelihood

    losses, gradient, hessian = observed.fitted(psi)
    torch.testing.assert_close(losses.sum(), value(psi))
    torch.testing.assert_close(gradient, torch.autograd.functional.jacobian(value, psi))
    torch.testing.assert_close(observed.gradient(psi), gradient)
    every = torch.autograd.functional.hessian(value, psi)
    for task in range(problems.TASKS):
        torch.testing.assert_close(hessian[task], every[task, :, task])


def test_kernel_parameters_are_fitted_to_each_task_as_an_independent_optimizer_fits_them() -> None:
    head = head_of(fitted=True)
    params = problems.initial(head)
    shared = params["head.kernel"]
    support, _ = problems.rows(head, params, problems.tasks(2))
    psi, _, left = head.fit(head._observed(params, support), shared)
    assert left.max() < 1e-6
    for task, (x, _, residual, weight) in enumerate(zip(*in_numpy(head, params), strict=True)):

        def value(
            psi: npt.NDArray[np.float64],
            x: npt.NDArray[np.float64] = x,
            residual: npt.NDArray[np.float64] = residual,
            weight: npt.NDArray[np.float64] = weight,
        ) -> float:
            likelihood = independent("rbf", psi, x, residual, weight).log_marginal_likelihood_value_
            return float(-likelihood + ((psi - shared[0].numpy()) ** 2).sum() / (2 * SPREAD**2))

        found = minimize(value, shared[0].numpy(), tol=1e-10)
        np.testing.assert_allclose(psi[task], found.x, atol=1e-3)
        assert (psi[task] - shared[0]).abs().max() > 0.001


def test_what_a_task_gets_depends_on_no_other_task() -> None:
    head = head_of(fitted=True)
    params = problems.initial(head)
    batch = problems.tasks(2)
    together = problems.learner(head).predict_queries(params, batch, 1)
    alone = torch.cat([problems.learner(head).predict_queries(params, batch[task : task + 1], 1) for task in range(3)])
    torch.testing.assert_close(alone, together, rtol=1e-9, atol=1e-9)
