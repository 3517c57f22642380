"""Adaptation that can't blow up, for use where nobody looks at each task.

Each task halves its step size until its support loss falls. Where a support set is large enough, a fifth of it judges: adaptation
to the other four fifths says after how many steps to stop, and adaptation to the whole set goes that far. What a task gets depends
on no other task of its batch.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from metaopt_core.meta.gradients import Loss
from metaopt_core.meta.step_sizes import Size
from metaopt_core.models import Params

HALVINGS = 10
"""After so many halvings in vain, a task stays where it is."""

HELD_OUT_EVERY = 5
FEWEST_HELD_OUT = 2


def adapt(loss: Callable[[Tensor], Loss], weight: Tensor, labels: Tensor, theta: Params, sizes: Sequence[Size]) -> Iterator[Params]:
    """The tasks' parameters after 0, 1, … steps of at most the given sizes from `theta`, each name → [tasks, …].

    loss: weights of the support examples [tasks, support] → the tasks' support loss; weight: those that the tasks come with.
    labels [tasks, support]: the examples' classes, of each of which a part is held out; all alike in regression.
    """
    held_out = _held_out(labels)
    whole = _descent(loss(weight), theta, sizes)
    if not held_out.any():
        yield from whole
        return
    stops = held_out.any(1)
    fitted, judge = _descent(loss(weight * ~held_out), theta, sizes), loss(weight * (held_out | ~stops[:, None]))
    best = torch.full(stops.shape, torch.inf, device=stops.device)
    chosen = theta
    for full, part in zip(whole, fitted, strict=True):
        with torch.no_grad():
            judged = judge(part)
        better = (judged < best) | ~stops
        best = torch.where(better, judged, best)
        chosen = _where(better, full, chosen)
        yield chosen


def _held_out(labels: Tensor) -> Tensor:
    """Which support examples are held out [tasks, support]: every fifth of each class. Where that is none of some class, or fewer
    than FEWEST_HELD_OUT in all, none is."""
    same = labels[:, :, None] == labels[:, None, :]
    held_out = (same.tril().sum(2) % HELD_OUT_EVERY) == 0  # an example's place among those of its class, from 1
    of_every_class = (same & held_out[:, None, :]).any(2).all(1)
    return held_out & (of_every_class & (held_out.sum(1) >= FEWEST_HELD_OUT))[:, None]


def _descent(loss: Loss, theta: Params, sizes: Sequence[Size]) -> Iterator[Params]:
    yield theta
    for size in sizes:
        theta = _falling_step(loss, theta, size)
        yield theta


def _falling_step(loss: Loss, theta: Params, size: Size) -> Params:
    """A gradient step, in each task halved until its loss doesn't rise (one that is not a number has risen)."""
    theta = {name: value.detach().requires_grad_() for name, value in theta.items()}
    before = loss(theta)
    gradient = torch.autograd.grad(before.sum(), list(theta.values()))
    scale = torch.ones_like(before)
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
    return _where(falls, moved, {name: value.detach() for name, value in theta.items()})


def _where(which: Tensor, these: Params, others: Params) -> Params:
    """Each task's parameters from one of two sets, by `which` [tasks]."""
    return {name: torch.where(which.view(-1, *(1 for _ in value.shape[1:])), value, others[name]) for name, value in these.items()}
