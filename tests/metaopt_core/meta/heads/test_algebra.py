"""Derivatives of systems of equations, against finite differences."""

import numpy as np
import torch
from scipy.stats import multivariate_normal

from metaopt_core.meta.heads.algebra import factor, log_density, solve


def positive(seed: int = 0) -> torch.Tensor:
    root = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.mT + torch.eye(4, dtype=torch.float64)


def symmetric(a: torch.Tensor) -> torch.Tensor:
    """What is perturbed in one place is perturbed in the other: only symmetric matrices are ever solved."""
    return (a + a.mT) / 2


def test_a_solution_and_its_first_two_derivatives() -> None:
    a, b = positive().requires_grad_(), torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    np.testing.assert_allclose(a.detach() @ solve(a, b).detach(), b.detach(), atol=1e-12)
    assert torch.autograd.gradcheck(lambda a, b: solve(symmetric(a), b), (a, b))
    assert torch.autograd.gradgradcheck(lambda a, b: solve(symmetric(a), b), (a, b))


def test_a_log_density_and_its_derivative() -> None:
    a, r = positive().requires_grad_(), torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    found = log_density(a, r).detach() - 3 * 4 / 2 * np.log(2 * np.pi)
    for task in range(2):
        density = multivariate_normal(cov=a[task].detach().numpy())
        np.testing.assert_allclose(found[task], density.logpdf(r[task].detach().numpy().T).sum(), rtol=1e-10)
    assert torch.autograd.gradcheck(lambda a, r: log_density(symmetric(a), r), (a, r))


def test_where_there_is_no_factor_it_is_not_a_number_and_other_tasks_keep_theirs() -> None:
    a = positive()
    expected = factor(a)[1]
    a[0] = -a[0]
    found = factor(a)
    assert found[0].isnan().all()
    assert torch.equal(found[1], expected)
