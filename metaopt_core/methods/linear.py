"""Linear models: pooled, pooled with an offset for each task, and on each task alone."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.from_support import Choices, Pooled, best, chosen, pooled, validation
from metaopt_core.methods.support import Predictor, Support
from metaopt_core.networks.network import Params

PENALTIES = (1e-4, 1e-3, 1e-2, 0.1, 1.0)  # of pooled rows: a share of the features' mean square
ALONE = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)  # of a task's own, in squares of a feature
OFFSETS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # examples that an offset's prior is worth


Model = Callable[[Tensor], Tensor]
"""Queries [tasks, queries, features] → outputs [tasks, queries, outputs], the same for all tasks."""


def pooled_ridge(setting: Setting) -> Params:
    """weights [features, outputs] and constant [outputs] of all training rows."""
    rows = pooled(setting, "train")
    assert rows is not None
    tasks = list(validation(setting))

    def predictor(penalty: float) -> Predictor:
        found = ridge_of(rows, penalty)
        return lambda support, query_x: (line(found, query_x), None)  # noqa: ARG005

    return ridge_of(rows, best(setting, tasks, PENALTIES, predictor))


def ridge_of(rows: Pooled, penalty: float) -> Params:
    """Weighted ridge regression; the constant is not penalized."""
    weight = rows.weight[:, None] / rows.weight.sum()
    x_mean, y_mean = (rows.x * weight).sum(0), (rows.y * weight).sum(0)
    x = rows.x - x_mean
    gram = (x * weight).T @ x
    gram = gram + penalty * torch.diagonal(gram).mean() * torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.linalg.solve(gram, (x * weight).T @ (rows.y - y_mean))
    return {"weights": weights, "constant": y_mean - x_mean @ weights}


def line(params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    return x @ params["weights"] + params["constant"]


def line_of(params: Mapping[str, Tensor]) -> Model:
    return lambda x: line(params, x)


def with_offset(setting: Setting, params: Params, model_of: Callable[[Params], Model]) -> Params:
    """The parameters of a pooled model with `examples`, which say how much an offset is shrunk."""
    model, tasks = model_of(params), list(validation(setting))

    def predictor(examples: float) -> Predictor:
        return offset(model, {"examples": torch.tensor(examples, dtype=torch.float64)})

    return params | {"examples": torch.tensor([best(setting, tasks, OFFSETS, predictor)], dtype=torch.float64)}


def offset(model: Model, params: Mapping[str, Tensor]) -> Predictor:
    """The pooled model, moved by the mean of what it leaves of the support set: of n examples by n / (n + `examples`) of it."""

    def predict(support: Support, query_x: Tensor) -> tuple[Tensor, None]:
        left = ((support.y - model(support.x)) * support.weight[..., None]).sum(1)
        moved = left / (support.count + params["examples"])[:, None]
        return model(query_x) + moved[:, None], None

    return predict


def ridge_alone(setting: Setting) -> Params:
    """The best penalty for each number of examples."""
    found = chosen(setting, ALONE, lambda penalty: alone(Choices(torch.ones(1), torch.tensor([penalty], dtype=torch.float64))))
    return {"shots": found.shots, "penalty": found.value}


def alone(penalties: Choices) -> Predictor:
    """Ridge regression on each support set, by its dual (examples × examples), so that features may outnumber examples."""

    def predict(support: Support, query_x: Tensor) -> tuple[Tensor, None]:
        share = support.weight / support.count[:, None]
        x_mean = (support.x * share[..., None]).sum(1, keepdim=True)
        y_mean = (support.y * share[..., None]).sum(1, keepdim=True)
        root = support.weight.sqrt()[..., None]
        x, y = (support.x - x_mean) * root, (support.y - y_mean) * root
        gram = x @ x.transpose(1, 2) + penalties.of(support)[:, None, None] * torch.eye(x.shape[1], dtype=x.dtype)
        dual = torch.cholesky_solve(y, torch.linalg.cholesky(gram))
        return (query_x - x_mean) @ (x.transpose(1, 2) @ dual) + y_mean, None

    return predict
