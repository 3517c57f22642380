"""The outer loop: from initial parameters to the ones that validate best.

Step i descends on the tasks with indices i·B … i·B+B−1, so what a step sees is a function of its number alone. With the checkpoint
that makes a resumed training the same, bit for bit on the CPU, as one that was never interrupted.
"""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaopt_core.distributions.batch import Episode, TaskBatch, TaskDistribution
from metaopt_core.errors import UserError
from metaopt_core.meta.checkpoint import load_checkpoint, save_checkpoint
from metaopt_core.meta.objectives import Objective
from metaopt_core.models import Params
from metaopt_core.progress import bar
from metaopt_core.spec.models import OuterSpec

_TASKS_DRAWN_TOGETHER = 1024


class Record(NamedTuple):
    """A point of a training curve: what `name` was after `iteration` outer steps."""

    iteration: int
    name: str
    value: float


@dataclass(frozen=True)
class Training:
    """What to train on, for how long, and how to step.

    validate: parameters → curves by name, among them `validation_loss`, the one that chooses the best parameters.
    patience: validations in a row without a better one after which training stops; none means that it never does.
    """

    name: str
    objective: Objective
    distribution: TaskDistribution
    episode: Episode
    meta_batch_size: int
    iterations: int
    outer: OuterSpec
    validate: Callable[[Params], dict[str, float]]
    validate_every: int
    checkpoint_every: float
    device: torch.device
    patience: int | None = None

    @property
    def record_every(self) -> int:
        """Iterations between two points of the loss curve: ten for each validation."""
        return max(1, self.validate_every // 10)


@dataclass(frozen=True)
class Trained:
    """params: the best by validation, seen at `best_iteration` of `iterations`; seconds: spent training, over all resumptions."""

    params: Params
    iterations: int
    best_iteration: int
    history: list[Record]
    seconds: float


@dataclass
class _State:
    """All that a training is after some iterations, and so all that a checkpoint holds."""

    params: Params
    optimizer: torch.optim.Adam
    best: Params
    losses: Tensor  # of the tasks of the iterations since the last record, [record_every, tasks]
    iteration: int = 0
    best_loss: float = math.inf
    best_iteration: int = 0
    seconds: float = 0.0
    history: list[Record] = field(default_factory=list)

    def save(self, path: Path) -> None:
        tensors = {f"params.{name}": value for name, value in self.params.items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for name, value in self.params.items():
            tensors |= {f"adam.{name}.{key}": moment for key, moment in self.optimizer.state[value].items()}
        numbers = {key: getattr(self, key) for key in ("iteration", "best_loss", "best_iteration", "seconds", "history")}
        save_checkpoint(path, tensors | {"losses": self.losses}, numbers)

    def restore(self, path: Path, device: torch.device) -> bool:
        """Become what the checkpoint holds; false where there is none."""
        loaded = load_checkpoint(path)
        if loaded is None:
            return False
        tensors, numbers = loaded
        for name, value in self.params.items():
            value.data.copy_(tensors[f"params.{name}"])
            self.best[name] = tensors[f"best.{name}"].to(device)
            prefix = f"adam.{name}."
            moments = {key.removeprefix(prefix): moment for key, moment in tensors.items() if key.startswith(prefix)}
            if moments:
                self.optimizer.state[value] = {key: moment.to(device) for key, moment in moments.items()}
        self.losses.copy_(tensors["losses"])
        for key, number in numbers.items():
            setattr(self, key, number)
        self.history = [Record(*record) for record in self.history]
        return True


def fit(training: Training, params: Params, checkpoint: Path, on_record: Callable[[Record], None] = lambda _: None) -> Trained:
    """Train from initial parameters, or go on from the checkpoint where there is one.

    `on_record` gets every point of the curves once a call, those from before a checkpoint included. Ctrl-C and a termination signal
    finish the iteration at hand and save a checkpoint before they take effect.

    Raises:
        UserError: a loss is not finite (with its iteration and task), or no validation ever was.
    """
    state = _begin(training, params)
    if state.restore(checkpoint, training.device):
        for record in state.history:
            on_record(record)

    def note(name: str, value: float) -> None:
        state.history.append(Record(state.iteration, name, value))
        on_record(state.history[-1])

    saved = time.monotonic()
    started = saved - state.seconds
    batches = _batches(training, state.iteration)
    with bar(training.iterations, training.name, state.iteration) as progress, _signals_deferred() as pending:
        while state.iteration < training.iterations and not _out_of_patience(training, state):
            _step(training, state, next(batches))
            state.iteration += 1
            if state.iteration % training.record_every == 0 or state.iteration == training.iterations:
                loss = _mean_loss(training, state)
                note("loss", loss)
                progress.update(state.iteration, f"loss {loss:.4g}")
            if state.iteration % training.validate_every == 0 or state.iteration == training.iterations:
                _validate(training, state, note)
            state.seconds = time.monotonic() - started
            if pending or time.monotonic() - saved > training.checkpoint_every:
                _check_finite(training, state)
                state.save(checkpoint)
                saved = time.monotonic()
            if pending:
                break
    if not math.isfinite(state.best_loss):
        raise UserError(
            f"{training.name}: adaptation diverged in every validation up to iteration {state.iteration}: a smaller train.inner.lr "
            "or train.outer.lr, or fewer train.validation.steps, may help"
        )
    if state.iteration < training.iterations:
        sys.stderr.write(
            f"{training.name}: stopped after {state.iteration} iterations: no validation was better than that of iteration "
            f"{state.best_iteration}\n"
        )
    state.save(checkpoint)  # a later phase may be interrupted, and this one is not to be trained again
    return Trained(state.best, state.iteration, state.best_iteration, state.history, state.seconds)


def _out_of_patience(training: Training, state: _State) -> bool:
    """Whether so many validations have passed since the best one. A function of what a checkpoint holds, so that it stays true."""
    since_best = (state.iteration - state.best_iteration) // training.validate_every
    return training.patience is not None and since_best >= training.patience


def _begin(training: Training, params: Params) -> _State:
    params = {name: value.to(training.device).clone().requires_grad_() for name, value in params.items()}
    return _State(
        params=params,
        optimizer=torch.optim.Adam(list(params.values()), lr=training.outer.lr, fused=True),
        best={name: value.detach().clone() for name, value in params.items()},
        losses=torch.zeros(training.record_every, training.meta_batch_size, device=training.device),
    )


def _batches(training: Training, start: int) -> Iterator[TaskBatch]:
    """The meta-batches of the iterations from `start` on, drawn many at a time."""
    size = training.meta_batch_size
    together = max(1, _TASKS_DRAWN_TOGETHER // size)
    for first in range(start, training.iterations, together):
        count = min(together, training.iterations - first)
        drawn = training.distribution.train(training.episode, first * size, count * size).to(training.device)
        for step in range(count):
            yield drawn[step * size : (step + 1) * size]


def _step(training: Training, state: _State, batch: TaskBatch) -> None:
    result = training.objective(state.params, batch)
    for name, value in state.params.items():
        value.grad = result.gradient[name]
    if training.outer.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(state.params.values(), training.outer.clip_norm)
    state.optimizer.param_groups[0]["lr"] = _outer_lr(training, state.iteration)
    state.optimizer.step()
    state.losses[state.iteration % training.record_every] = result.losses


def _outer_lr(training: Training, iteration: int) -> float:
    if training.outer.schedule == "constant":
        return training.outer.lr
    return training.outer.lr * 0.5 * (1 + math.cos(math.pi * iteration / training.iterations))


def _recent(training: Training, state: _State) -> Tensor:
    """The losses since the last record, [iterations, tasks]."""
    return state.losses[: (state.iteration - 1) % training.record_every + 1]


def _mean_loss(training: Training, state: _State) -> float:
    _check_finite(training, state)
    return _recent(training, state).mean().item()


def _check_finite(training: Training, state: _State) -> None:
    recent = _recent(training, state)
    bad = (~recent.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        iteration = state.iteration - len(recent) + row
        task = iteration * training.meta_batch_size + column
        raise UserError(
            f"{training.name}: the loss of meta-train task {task} is {recent[row, column].item()} in iteration {iteration}: "
            "expected a finite number; a smaller train.inner.lr or train.outer.lr, or train.outer.clip_norm, may help"
        )


def _validate(training: Training, state: _State, note: Callable[[str, float], None]) -> None:
    curves = training.validate(state.params)
    for name, value in curves.items():
        if math.isfinite(value):  # a curve has no point where adaptation diverged
            note(name, value)
    loss = curves["validation_loss"]
    if math.isfinite(loss) and loss < state.best_loss:
        state.best_loss, state.best_iteration = loss, state.iteration
        state.best = {name: value.detach().clone() for name, value in state.params.items()}


@contextmanager
def _signals_deferred() -> Iterator[list[int]]:
    """Collects interrupt and termination signals for the length of a block; the first one takes effect after it."""
    pending: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals only ever reach the main thread
        yield pending
        return
    before: dict[int, Any] = {
        number: signal.signal(number, lambda received, _: pending.append(received)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield pending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if pending:
            signal.raise_signal(pending[0])
