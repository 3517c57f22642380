"""Adaptation that can't blow up, for use where nobody looks at each task.

Each task halves its step size until its support loss falls. Where a support set is large enough, a fifth of it judges: once
adaptation to the other four fifths surely harms that fifth, adaptation to the whole set goes no further. (To stop where the
held-out loss is lowest would be to stop by chance, and mostly too early.) What a task gets depends on no other task of its batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from metaopt_core.meta.inner_loop import by_task_norm
from metaopt_core.meta.losses import Differentiated, Loss
from metaopt_core.meta.step_sizes import Size
from metaopt_core.networks.network import Params

HALVINGS = 10
"""After so many halvings in vain, a task stays where it is."""

HELD_OUT_EVERY = 5
FEWEST_HELD_OUT = 5
SURE = 2.0
"""Standard errors by which the mean held-out loss has to rise above its lowest."""

Losses = Callable[[Mapping[str, Tensor]], Tensor]
"""Parameters [tasks, …] → the loss of each support example [tasks, support]."""


def adapt(
    losses: Losses, weight: Tensor, labels: Tensor, theta: Params, sizes: Sequence[Size], clip_norm: float | None = None
) -> Iterator[Params]:
    """The tasks' parameters after 0, 1, … steps of at most the given sizes from `theta`, each name → [tasks, …].

    weight [tasks, support]: the examples' weights in their task's loss; labels [tasks, support]: their classes, of each of which a
    part is held out (all alike in regression). clip_norm: the largest norm of a task's gradient.
    """
    whole = _descent(_mean(losses, weight), theta, sizes, clip_norm)
    held_out = _held_out(labels)
    if not held_out.any():
        yield from whole
        return
    fitted = _descent(_mean(losses, weight * ~held_out), theta, sizes, clip_norm)
    chosen = theta
    best = torch.full(labels.shape, torch.inf, device=labels.device)
    for full, part in zip(whole, fitted, strict=True):
        with torch.no_grad():
            judged = losses(part)
        chosen = _where(~_surely_worse(judged, best, held_out), full, chosen)
        lower = ((judged - best) * held_out).nan_to_num(torch.inf).sum(1) < 0
        best = torch.where(lower[:, None] | ~best.isfinite(), judged, best)
        yield chosen


def _mean(losses: Losses, weight: Tensor) -> Loss:
    return lambda params: (losses(params) * weight).sum(1) / weight.sum(1)


def _surely_worse(losses: Tensor, best: Tensor, held_out: Tensor) -> Tensor:
    """In which tasks the held-out examples' mean loss has risen by more than SURE standard errors of the rise [tasks]."""
    count = held_out.sum(1).clamp(min=2)
    rise = torch.where(held_out & best.isfinite(), losses - best, 0.0)
    mean = rise.sum(1) / count
    spread = (torch.where(held_out, rise - mean[:, None], 0.0).square().sum(1) / (count - 1)).sqrt()
    return ~(mean <= SURE * spread / count.sqrt())


def _held_out(labels: Tensor) -> Tensor:
    """Which support examples are held out [tasks, support]: every fifth of each class. Where that is none of some class, or fewer
    than FEWEST_HELD_OUT in all, none is."""
    same = labels[:, :, None] == labels[:, None, :]
    held_out = (same.tril().sum(2) % HELD_OUT_EVERY) == 0  # an example's place among those of its class, from 1
    of_every_class = (same & held_out[:, None, :]).any(2).all(1)
    return held_out & (of_every_class & (held_out.sum(1) >= FEWEST_HELD_OUT))[:, None]


def _descent(loss: Loss, theta: Params, sizes: Sequence[Size], clip_norm: float | None) -> Iterator[Params]:
    yield theta
    for size in sizes:
        theta = _falling_step(loss, theta, size, clip_norm)
        yield theta


def _falling_step(loss: Loss, theta: Params, size: Size, clip_norm: float | None) -> Params:
    """A gradient step, in each task halved until its loss doesn't rise (one that is not a number has risen)."""
    before, gradient = Differentiated(loss).gradient(theta)
    scale = torch.ones_like(before) if clip_norm is None else (clip_norm / by_task_norm(gradient)).clamp(max=1)
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
