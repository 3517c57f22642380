"""Linear models and Gaussian processes over tasks that share a prior: one kernel for the mixed model and for both.

Of output o, a task's targets at x are normal with the mean β·(x, 1) and the covariance
c + Σⱼ vⱼ xⱼ x'ⱼ + s exp(−½ Σⱼ (xⱼ − x'ⱼ)² / ℓⱼ²) + σ² [the same example]: a random intercept, random slopes, a smooth function and
noise (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, section 2.7). A mixed model has no smooth function.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.methods.contract import Setting
from metaopt_core.methods.from_support import Pooled, best, by_task, pooled, score, validation
from metaopt_core.methods.support import Predictor, Support

_JITTER = 1e-6  # of the noise, as a share of the targets' variance
_TASKS = 2000
_ROWS = 48  # of a task that the likelihood is computed of


@dataclass(frozen=True)
class Prior:
    """What all tasks share, of each output: beta [outputs, features + 1], the constant last; intercept [outputs]; slopes [outputs,
    features]; signal [outputs]; scales [outputs, features]; noise [outputs], a variance like intercept, slopes and signal."""

    beta: Tensor
    intercept: Tensor
    slopes: Tensor
    signal: Tensor
    scales: Tensor
    noise: Tensor

    @classmethod
    def of(cls, params: Mapping[str, Tensor]) -> "Prior":
        return cls(**{name: params[name] for name in cls.__dataclass_fields__})

    @property
    def params(self) -> dict[str, Tensor]:
        return {name: value.detach().contiguous() for name, value in vars(self).items()}

    def mean(self, x: Tensor) -> Tensor:
        """[tasks, examples, outputs] at x [tasks, examples, features]."""
        return x @ self.beta[:, :-1].T + self.beta[:, -1]

    def covariance(self, output: int, x: Tensor, other: Tensor) -> Tensor:
        """[tasks, examples, others], without noise."""
        found = self.intercept[output] + (x * self.slopes[output]) @ other.transpose(1, 2)
        if float(self.signal[output].detach()) > 0:
            one, two = x / self.scales[output], other / self.scales[output]
            squared = one.square().sum(-1)[:, :, None] + two.square().sum(-1)[:, None] - 2 * one @ two.transpose(1, 2)
            found = found + self.signal[output] * torch.exp(-0.5 * squared.clamp(min=0))
        return found

    def variance(self, output: int, x: Tensor) -> Tensor:
        """[tasks, examples], without noise."""
        return self.intercept[output] + x.square() @ self.slopes[output] + self.signal[output]


def predict(prior: Prior, support: Support, query_x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the queries' targets, given the support set [tasks, queries, outputs]."""
    means, deviations, rest = [], [], support.y - prior.mean(support.x)
    for output in range(rest.shape[-1]):
        factor = torch.linalg.cholesky(_with_noise(prior, output, support))
        across = prior.covariance(output, support.x, query_x) * (support.weight > 0)[..., None]
        known = (rest[..., output] * (support.weight > 0))[..., None]
        means.append((across.transpose(1, 2) @ torch.cholesky_solve(known, factor))[..., 0])
        explained = torch.linalg.solve_triangular(factor, across, upper=False).square().sum(1)
        deviations.append((prior.variance(output, query_x) - explained).clamp(min=0) + prior.noise[output])
    return prior.mean(query_x) + torch.stack(means, -1), torch.stack(deviations, -1).sqrt()


def _with_noise(prior: Prior, output: int, support: Support) -> Tensor:
    """The covariance of the support targets; an example of weight 0 is of variance 1 and by itself."""
    there = (support.weight > 0).to(support.x.dtype)
    own = torch.where(support.weight > 0, prior.noise[output] / support.weight.clamp(min=1e-12), 1.0)
    return prior.covariance(output, support.x, support.x) * there[:, :, None] * there[:, None] + torch.diag_embed(own)


def log_likelihood(prior: Prior, support: Support) -> Tensor:
    """The mean over tasks of the log marginal likelihood of an example."""
    total, rest = torch.zeros((), dtype=support.x.dtype), (support.y - prior.mean(support.x)) * (support.weight > 0)[..., None]
    for output in range(rest.shape[-1]):
        factor = torch.linalg.cholesky(_with_noise(prior, output, support))
        scaled = torch.linalg.solve_triangular(factor, rest[..., output, None], upper=False)[..., 0]
        logs = torch.diagonal(factor, dim1=1, dim2=2).log().sum(1)
        each = -0.5 * scaled.square().sum(1) - logs - 0.5 * math.log(2 * math.pi) * support.count
        total = total + (each / support.count).mean()
    return total


def learn(
    initial: Prior,
    rows: Support,
    learns: tuple[str, ...],
    judge: Callable[[Prior], float],
    steps: int = 120,
    lr: float = 0.1,
    together: int = 16,
) -> Prior:
    """The prior that makes the tasks' rows likely, by Adam on the logarithms of what it learns.

    Of what was met on the way, the best on the meta-validation tasks. judge: the larger, the better.
    """
    logs = {name: getattr(initial, name).clone().log().requires_grad_() for name in learns}
    optimizer = torch.optim.Adam(logs.values(), lr=lr)
    kept, reached = initial, judge(initial)
    for step in range(1, steps + 1):
        start = step * together % max(1, len(rows.x))
        tasks = torch.arange(start, start + min(together, len(rows.x))) % len(rows.x)
        part = Support(rows.x[tasks], rows.y[tasks], rows.weight[tasks])
        optimizer.zero_grad()
        (-log_likelihood(_prior(initial, logs), part)).backward()
        optimizer.step()
        if step % 40 == 0:
            found = Prior.of({name: value.detach() for name, value in vars(_prior(initial, logs)).items()})
            if (now := judge(found)) > reached:
                kept, reached = found, now
    return kept


def _prior(initial: Prior, logs: Mapping[str, Tensor]) -> Prior:
    return replace(initial, **{name: value.exp() for name, value in logs.items()})


# --- the mixed model ----------------------------------------------------------------------------------------------------


def mixed_model(rows: Pooled, slopes: bool, most: int = 100, tolerance: float = 1e-5) -> Prior:
    """Random intercept, and random slopes if there are to be any, that are independent of each other, by maximum likelihood.

    Expectation-maximization with the coefficients in closed form (ECME: Liu and Rubin, Biometrika 81, 1994).
    """
    numbers = torch.unique(rows.task)[:_TASKS]
    place = torch.searchsorted(numbers, rows.task).clamp(max=len(numbers) - 1)
    there = numbers[place] == rows.task
    x, y, place = rows.x[there], rows.y[there], place[there]
    z = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    order = torch.argsort(place, stable=True)
    parts = torch.bincount(place, minlength=len(numbers)).tolist()
    each = list(zip(z[order].split(parts), y[order].split(parts), strict=True))
    moving = slice(None) if slopes else slice(-1, None)
    gram = torch.stack([one.T @ one for one, _ in each])
    found = [_of_output(gram, each, output, moving, most, tolerance) for output in range(y.shape[1])]
    beta, variances, noise = (torch.stack(values) for values in zip(*found, strict=True))
    features = x.shape[1]
    ones = torch.ones(len(found), features, dtype=x.dtype)
    spread = variances[:, :-1] if slopes else torch.zeros_like(ones)
    return Prior(beta, variances[:, -1], spread, torch.zeros(len(found), dtype=x.dtype), ones, noise)


def _of_output(
    gram: Tensor, each: list[tuple[Tensor, Tensor]], output: int, moving: slice, most: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients [features + 1], variances of those that vary [.], and of the noise."""
    right = torch.stack([z.T @ y[:, output] for z, y in each])
    squares, count = sum(float(y[:, output].square().sum()) for _, y in each), sum(len(y) for _, y in each)
    ridge = 1e-6 * torch.diagonal(gram.sum(0)).mean() * torch.eye(gram.shape[1], dtype=gram.dtype)
    beta = torch.linalg.solve(gram.sum(0) + ridge, right.sum(0))
    noise = max((squares - float(2 * beta @ right.sum(0) - beta @ gram.sum(0) @ beta)) / count, 1e-9)
    floor, own, across = _JITTER * noise, gram[:, moving, moving], gram[:, moving]
    variances = torch.full((own.shape[1],), 0.1 * noise, dtype=gram.dtype)
    for _ in range(most):
        before = torch.cat([beta, variances, variances.new_tensor([noise])])
        spread = torch.linalg.inv(own / noise + torch.diag(1 / variances))  # of the effects, given the rows
        explained = across.transpose(1, 2) @ spread / noise
        left = (gram - explained @ across).sum(0) / noise
        beta = torch.linalg.solve(left + ridge / noise, (right - (explained @ right[:, moving, None])[..., 0]).sum(0) / noise)
        rest = right[:, moving] - across @ beta
        effects = (spread @ rest[..., None])[..., 0] / noise
        variances = (effects.square() + torch.diagonal(spread, dim1=1, dim2=2)).mean(0).clamp(min=floor)
        of_mean = squares - float(2 * beta @ right.sum(0) - beta @ gram.sum(0) @ beta)
        of_effects = (own * (effects[:, :, None] * effects[:, None] + spread)).sum() - 2 * (effects * rest).sum()
        noise = max((of_mean + float(of_effects)) / count, 1e-9)
        after = torch.cat([beta, variances, variances.new_tensor([noise])])
        if float((after - before).abs().max()) < tolerance * float(after.abs().max()):
            break
    return beta, variances, gram.new_tensor(noise)


# --- fitted to a setting ------------------------------------------------------------------------------------------------


def predictor(params: Mapping[str, Tensor]) -> Predictor:
    prior = Prior.of(params)
    return lambda support, query_x: predict(prior, support, query_x)


def fitted_mixed_model(setting: Setting) -> Prior:
    """With random slopes, if they are better on the meta-validation tasks."""
    rows = pooled(setting, "train")
    assert rows is not None
    found = [mixed_model(rows, slopes) for slopes in (False, True)]
    tasks = list(validation(setting))
    return found[int(best(setting, tasks, (0, 1), lambda place: predictor(found[int(place)].params)))]


def fitted_on_residuals(setting: Setting) -> Prior:
    """The mixed model with a smooth function of one length scale for all features."""
    rows = pooled(setting, "train")
    assert rows is not None
    mixed, tasks = fitted_mixed_model(setting), list(validation(setting))
    features = rows.x.shape[1]
    start = [
        replace(
            mixed,
            signal=0.5 * mixed.noise,
            noise=0.5 * mixed.noise,
            scales=torch.full_like(mixed.scales, scale * features**0.5),
            intercept=mixed.intercept.clamp(min=1e-3 * float(mixed.noise.max())),
        )
        for scale in (0.5, 1.5)
    ]
    return _learned(setting, rows, tasks, [mixed, *start], ("intercept", "signal", "noise"))


def fitted_scales(setting: Setting) -> Prior:
    """A constant mean, and a smooth function with a length scale for each feature."""
    rows = pooled(setting, "train")
    assert rows is not None
    outputs, features = rows.y.shape[1], rows.x.shape[1]
    mean = (rows.y * rows.weight[:, None]).mean(0)
    total = ((rows.y - mean).square() * rows.weight[:, None]).mean(0)
    zeros = torch.zeros(outputs, features, dtype=rows.x.dtype)
    start = [
        Prior(
            beta=torch.cat([zeros, mean[:, None]], 1),
            intercept=0.2 * total,
            slopes=zeros,
            signal=0.5 * total,
            scales=torch.full_like(zeros, scale * features**0.5),
            noise=0.3 * total,
        )
        for scale in (0.5, 2.0)
    ]
    return _learned(setting, rows, list(validation(setting)), start, ("intercept", "signal", "scales", "noise"))


def _learned(
    setting: Setting, rows: Pooled, tasks: list[tuple[int, TaskBatch]], start: list[Prior], learns: tuple[str, ...]
) -> Prior:
    """The best on the meta-validation tasks of what is learned from several beginnings."""
    padded = by_task(rows, _ROWS, _TASKS)

    def judge(prior: Prior) -> float:
        return score(setting, tasks, predictor(prior.params))

    found = [learn(prior, padded, learns, judge) if float(prior.signal.min()) > 0 else prior for prior in start]
    return max(found, key=judge)
