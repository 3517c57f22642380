"""Gaussian processes on single tasks: the hyperparameters are the likeliest of a grid, for all tasks at once.

The signal's variance is known in closed form: it has an inverse-gamma prior worth a few examples around the variance within
training tasks, or five examples would say what they like (Rasmussen and Williams 2006, section 2.2 and equation 5.8).
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.from_support import best, pooled, validation
from metaopt_core.methods.support import Predictor, Support
from metaopt_core.networks.network import Params

_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # times the root of the number of features
_NOISES = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)  # times the signal's variance
_PRIOR = (1.0, 3.0, 10.0)  # examples that the prior of the variance is worth


def fitted(setting: Setting) -> Params:
    """within [outputs]: the variance within training tasks; examples: what that prior is worth."""
    rows = pooled(setting, "train")
    assert rows is not None
    count = torch.bincount(rows.task).clamp(min=1).double()[:, None]
    means = torch.zeros(len(count), rows.y.shape[1], dtype=rows.y.dtype).index_add(0, rows.task, rows.y) / count
    within = ((rows.y - means[rows.task]).square() * rows.weight[:, None]).mean(0).clamp(min=1e-9)
    tasks = list(validation(setting))

    def of(examples: float) -> Params:
        return {"within": within, "examples": torch.tensor([examples], dtype=torch.float64)}

    return of(best(setting, tasks, _PRIOR, lambda examples: predictor(of(examples))))


def predictor(params: Mapping[str, Tensor]) -> Predictor:
    within, examples = params["within"], float(params["examples"])

    def predict(support: Support, query_x: Tensor) -> tuple[Tensor, Tensor]:
        centred = (support.y - support.mean[:, None]) * (support.weight > 0)[..., None]
        there = (support.weight > 0).to(support.x.dtype)
        distances = [_squared(support.x, other) / support.x.shape[-1] for other in (support.x, query_x)]
        likeliest = centred.new_full(centred.shape[::2], -math.inf)  # [tasks, outputs]
        mean, variance = (centred.new_zeros(*query_x.shape[:2], centred.shape[-1]) for _ in range(2))
        for scale in _SCALES:
            same, across = (torch.exp(-0.5 * distance / scale**2) for distance in distances)
            same, across = same * there[:, :, None] * there[:, None], across * there[..., None]
            for noise in _NOISES:
                own = torch.where(support.weight > 0, noise / support.weight.clamp(min=1e-12), 1.0)
                factor = torch.linalg.cholesky(same + torch.diag_embed(own))
                dual = torch.cholesky_solve(centred, factor)
                logs = torch.diagonal(factor, dim1=1, dim2=2).log().sum(1)[:, None]
                n = support.count[:, None]
                # Of the total variance signal · (1 + noise), whose prior is the variance within tasks.
                squares = (centred * dual).sum(1) + examples * within / (1 + noise)
                signal = squares / (n + examples)
                prior = -0.5 * examples * math.log(1 + noise)  # of the signal, by the change of variables
                likelihood = -0.5 * (n + examples) * squares.log() - logs + prior
                better = likelihood > likeliest
                likeliest = torch.where(better, likelihood, likeliest)
                explained = torch.linalg.solve_triangular(factor, across, upper=False).square().sum(1)[..., None]
                found = (1 + noise - explained).clamp(min=noise) * signal[:, None]
                mean = torch.where(better[:, None], across.transpose(1, 2) @ dual, mean)
                variance = torch.where(better[:, None], found, variance)
        return mean + support.mean[:, None], variance.sqrt()

    return predict


def _squared(one: Tensor, other: Tensor) -> Tensor:
    """Squared distances [tasks, examples, others]."""
    found = one.square().sum(-1)[:, :, None] + other.square().sum(-1)[:, None] - 2 * one @ other.transpose(1, 2)
    return found.clamp(min=0)
