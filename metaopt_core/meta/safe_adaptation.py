"""Adaptation that can't diverge, for use without supervision.

Each task halves its step size until its support loss falls. If a support set is large enough, a fifth of it is held out: once
adaptation to the other four fifths clearly harms that fifth, adaptation to the whole set stops. (Stopping at the lowest held-out
loss would mean stopping by chance, and mostly too early.) The result for a task depends on no other task of its batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from metaopt_core.meta.inner_loop import GRADIENT_DESCENT, Rule, by_task_norm
from metaopt_core.meta.losses import Differentiated, Loss
from metaopt_core.meta.step_sizes import Size
from metaopt_core.networks.network import Params

HALVINGS = 10
"""After this many unsuccessful halvings, a task stays where it is."""

HELD_OUT_EVERY = 5
FEWEST_HELD_OUT = 5
SURE = 2.0
"""Standard errors by which the mean held-out loss has to rise above its lowest."""

Losses = Callable[[Mapping[str, Tensor]], Tensor]
"""Parameters [tasks, …] → the loss of each support example [tasks, support]."""


def adapt(
    losses: Losses, weight: Tensor, labels: Tensor, theta: Params, sizes: Sequence[Size], rule: Rule = GRADIENT_DESCENT
) -> Iterator[Params]:
    """The tasks' parameters after 0, 1, … steps of at most the given sizes from `theta`, each name → [tasks, …].

    weight [tasks, support]: the examples' weights in their task's loss (0 pads); labels [tasks, support]: their classes, of each of
    which a part is held out (all alike in regression). Of the rule, which parameters move and the largest norm of their gradient
    count.
    """
    whole = _descent(_mean(losses, weight), theta, sizes, rule)
    held_out = _held_out(labels, weight > 0)
    if not held_out.any():
        yield from whole
        return
    fitted = _descent(_mean(losses, weight * ~held_out), theta, sizes, rule)
    chosen = theta
    best = torch.full(labels.shape, torch.inf, device=labels.device)
    for full, part in zip(whole, fitted, strict=True):
        with torch.no_grad():
            judged = losses(part)
        chosen = _where(~_surely_worse(judged, best, weight * held_out), full, chosen)
        lower = ((judged - best) * weight * held_out).nan_to_num(torch.inf).sum(1) < 0
        best = torch.where(lower[:, None] | ~best.isfinite(), judged, best)
        yield chosen


def _mean(losses: Losses, weight: Tensor) -> Loss:
    total = weight.sum(1).clamp(min=torch.finfo(weight.dtype).tiny)
    return lambda params: (losses(params) * weight).sum(1) / total


def _surely_worse(losses: Tensor, best: Tensor, weight: Tensor) -> Tensor:
    """In which tasks the held-out examples' mean loss has risen by more than SURE standard errors of the rise [tasks].

    weight [tasks, support]: of the held-out examples, 0 for the others. By weights that differ, they say as much as
    (Σ weight)² / Σ weight² examples that count alike (Kish 1965).
    """
    held_out, total = weight > 0, weight.sum(1)
    count = (total.square() / weight.square().sum(1).clamp(min=torch.finfo(weight.dtype).tiny)).clamp(min=2)
    total = torch.where(total > 0, total, count)
    rise = torch.where(held_out & best.isfinite(), losses - best, 0.0)
    mean = (rise * weight).sum(1) / total
    squares = (torch.where(held_out, rise - mean[:, None], 0.0).square() * weight).sum(1)
    spread = (squares / (total * (count - 1) / count)).sqrt()
    return ~(mean <= SURE * spread / count.sqrt())


def _held_out(labels: Tensor, counts: Tensor) -> Tensor:
    """Which support examples are held out [tasks, support]: every fifth of each class. Where that is none of some class, or fewer
    than FEWEST_HELD_OUT in all, none is. counts [tasks, support]: which are examples, not padding."""
    same = (labels[:, :, None] == labels[:, None, :]) & counts[:, :, None] & counts[:, None, :]
    held_out = counts & ((same.tril().sum(2) % HELD_OUT_EVERY) == 0)  # an example's place among those of its class, from 1
    of_every_class = (~counts | (same & held_out[:, None, :]).any(2)).all(1)
    return held_out & (of_every_class & (held_out.sum(1) >= FEWEST_HELD_OUT))[:, None]


def _descent(loss: Loss, theta: Params, sizes: Sequence[Size], rule: Rule) -> Iterator[Params]:
    yield theta
    for size in sizes:
        theta = _falling_step(loss, theta, size, rule)
        yield theta


def _falling_step(loss: Loss, theta: Params, size: Size, rule: Rule) -> Params:
    """A gradient step, in each task halved until its loss doesn't rise (one that is not a number has risen)."""
    before, gradient = Differentiated(loss, rule.adapts).gradient(theta)
    scale = torch.ones_like(before) if rule.clip_norm is None else (rule.clip_norm / by_task_norm(gradient)).clamp(max=1)
    with torch.no_grad():
        for _ in range(HALVINGS + 1):
            sizes: tuple[float | Tensor, ...] = (size,) * len(theta) if isinstance(size, float) else size
            moved = {
                name: value - scale.view(-1, *(1 for _ in value.shape[1:])) * alpha * g
                for (name, value), alpha, g in zip(theta.items(), sizes, gradient, strict=True)
            }
            falls = loss(moved) <= before
            if falls.all():
                break
            scale = torch.where(falls, scale, scale / 2)
    return _where(falls, moved, theta)


def _where(which: Tensor, these: Params, others: Params) -> Params:
    """Each task's parameters from one of two sets, by `which` [tasks]."""
    return {name: torch.where(which.view(-1, *(1 for _ in value.shape[1:])), value, others[name]) for name, value in these.items()}
