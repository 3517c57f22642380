"""Ridge regression on features, against scikit-learn's, task by task."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Independent

from metaopt_core.meta.heads.ridge import Ridge
from tests.metaopt_core.meta.heads import problems


@pytest.mark.parametrize("width", [4, 9], ids=["rows outnumber features", "features outnumber rows"])
@pytest.mark.parametrize(("classes", "pooled"), [(False, False), (False, True), (True, False)])
def test_it_predicts_what_an_independent_ridge_regression_of_each_task_predicts(classes: bool, pooled: bool, width: int) -> None:
    head = Ridge(problems.network(3, width), classes, pooled)
    batch, params = problems.tasks(3, classes), problems.initial(head)
    support, query = problems.rows(head, params, batch)
    found = head.outputs({**params, **head.solve(params, support)}, query.features)
    y = (2.0 * np.eye(3)[batch.support_y] - 1) if classes else batch.support_y.numpy()
    if pooled:
        prior = [(part.features @ params["layer2.weight"] + params["layer2.bias"]).numpy() for part in (support, query)]
    else:
        prior = [np.broadcast_to(params["head.mean"].numpy(), (*part.features.shape[:2], 3)) for part in (support, query)]
    ridge, scale = (float(params[f"head.{name}"].exp()) for name in ("log_ridge", "log_scale"))
    for task, size in enumerate(problems.SIZES):
        phi, of_queries = (part.features[task].numpy() / np.sqrt(width) for part in (support, query))
        independent = Independent(alpha=ridge, fit_intercept=False)
        weight = batch.support_weight[task, :size].numpy() if batch.support_weight is not None else None
        independent.fit(phi[:size], (y - prior[0])[task, :size], sample_weight=weight)
        np.testing.assert_allclose(found[task], prior[1][task] + scale * independent.predict(of_queries), atol=1e-9)


def test_without_a_solution_it_predicts_the_prior_mean() -> None:
    head = Ridge(problems.network(2), classification=False, pooled=False)
    params = problems.initial(head)
    found = head.outputs(params, torch.randn(3, 5, problems.WIDTH, dtype=torch.float64))
    torch.testing.assert_close(found, params["head.mean"].expand(3, 5, 2))
    assert not set(head.network.head) & params.keys()  # a last layer that nobody uses is no parameter
