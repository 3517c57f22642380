"""The outer loop: from initial parameters to those that validate best.

Step i descends on the tasks with indices i·B … i·B+B−1, so its tasks are a function of i alone. Together with the checkpoint this
makes a resumed training run equal to an uninterrupted one, bit for bit on the CPU.
"""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.adam import adam

from metaopt_core.distributions.batch import Episode, TaskBatch, TaskDistribution, bytes_of, with_own_shots
from metaopt_core.distributions.random import Stream
from metaopt_core.errors import DivergedError
from metaopt_core.meta.objectives import Objective
from metaopt_core.networks.network import Params, joined
from metaopt_core.progress import bar
from metaopt_core.spec.train import OuterSpec
from metaopt_core.training.checkpoint import load_checkpoint, save_checkpoint

_TASKS_DRAWN_TOGETHER = 1024
_BYTES_DRAWN_TOGETHER = 2**26
_ITERATIONS_TRACED = 20
_ALIGNMENT = 64  # bytes to which PyTorch aligns what it allocates on a CPU
_MOST_DIVERGED = 5  # validations in a row, after which training ends
_REMEDY = "a smaller train.inner.lr or train.outer.lr, or fewer train.validation.steps, may help"
_NUMBERS = ("iteration", "diverged", "best_loss", "best_iteration", "seconds", "history", "seconds_by_part")

PARTS = ("data", "gradient", "optimizer", "validation")
"""The parts of an iteration's time."""


class Record(NamedTuple):
    """A point of a training curve: the value of `name` after `iteration` outer steps, and its time, in seconds since 1970."""

    iteration: int
    name: str
    value: float
    time: float


@dataclass(frozen=True)
class Training:
    """What to train on, for how long, and how to step.

    validate: parameters → curves by name, among them `validation_loss`, which chooses the best parameters.
    seed: of the numbers of shots, if each task draws its own.
    patience: validations in a row without a better one after which training stops; none means never.
    project: moves the parameters into their allowed range, after every step.
    trace: where to write a profile of some iterations, in Chrome's trace format. snapshots: a folder for the parameters at every
    validation, one file ITERATION.safetensors each.
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
    seed: int = 0
    patience: int | None = None
    project: Callable[[Params], None] | None = None
    trace: Path | None = None
    snapshots: Path | None = None

    @property
    def record_every(self) -> int:
        """Iterations between two points of the loss curve: ten for each validation."""
        return max(1, self.validate_every // 10)


@dataclass(frozen=True)
class Trained:
    """params: the best by validation, from `best_iteration` of `iterations`; seconds: spent training, over all resumptions, and on
    what.

    On a GPU, work that one part started may be awaited in a later part.
    """

    params: Params
    iterations: int
    best_iteration: int
    history: list[Record]
    seconds: float
    seconds_by_part: dict[str, float]

    @property
    def time_shares(self) -> dict[str, float]:
        """The share of the seconds that each part took; the rest went to curves, checkpoints and the loop itself."""
        return {part: round(seconds / self.seconds, 4) for part, seconds in self.seconds_by_part.items()} if self.seconds else {}


@dataclass
class State:
    """The complete state of a training run after some iterations, which is what a checkpoint holds.

    flat: all parameters concatenated, which Adam updates as one; params are views of it. adam: its moments.
    """

    flat: Tensor
    params: Params
    adam: Params
    best: Params
    losses: Tensor  # of tasks since the last record, [record_every, tasks]
    iteration: int = 0
    diverged: int = 0  # validations, the last ones in a row
    best_loss: float = math.inf
    best_iteration: int = 0
    seconds: float = 0.0
    history: list[Record] = field(default_factory=list)
    seconds_by_part: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    notes: Mapping[str, Tensor] = field(default_factory=dict)  # of the last iteration

    def save(self, path: Path) -> None:
        tensors = {f"params.{name}": value for name, value in self.params.items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"adam.{name}": value for name, value in self.adam.items()}
        save_checkpoint(path, tensors | {"losses": self.losses}, {key: getattr(self, key) for key in _NUMBERS})

    def restore(self, path: Path, device: torch.device) -> bool:
        """Restore the checkpoint; false if there is none."""
        loaded = load_checkpoint(path)
        if loaded is None:
            return False
        tensors, numbers = loaded
        for name, value in self.params.items():
            value.copy_(tensors[f"params.{name}"])
            self.best[name] = tensors[f"best.{name}"].to(device)
        for name, value in self.adam.items():
            value.copy_(tensors[f"adam.{name}"])
        self.losses.copy_(tensors["losses"])
        for key in _NUMBERS:
            setattr(self, key, numbers[key])
        self.history = [Record(*record) for record in self.history]
        return True


def fit(training: Training, params: Params, checkpoint: Path, on_record: Callable[[Record], None] = lambda _: None) -> Trained:
    """Train from initial parameters, or resume from the checkpoint if there is one.

    `on_record` gets every point of the curves once in each call, including those from before a checkpoint. After Ctrl-C or a
    termination signal the current iteration finishes and a checkpoint is saved before the signal takes effect.

    Raises:
        DivergedError: a loss is not finite (with its iteration and task), or no validation ever was.
    """
    state = begin(training, params)
    if state.restore(checkpoint, training.device):
        for record in state.history:
            on_record(record)

    def note(name: str, value: float) -> None:
        state.history.append(Record(state.iteration, name, value, time.time()))
        on_record(state.history[-1])

    saved = time.monotonic()
    started = saved - state.seconds
    batches = _batches(training, state.iteration)
    with (
        bar(training.iterations, training.name, state.iteration) as progress,
        _signals_deferred() as pending,
        _profiler(training) as profiler,
    ):
        while state.iteration < training.iterations and not _out_of_patience(training, state):
            step(training, state, _next(state, batches))
            state.iteration += 1
            if profiler is not None:
                profiler.step()
            if state.iteration % training.record_every == 0 or state.iteration == training.iterations:
                loss = _mean_loss(training, state)
                note("loss", loss)
                for name, values in state.notes.items():
                    note(name, values.mean().item())
                progress.update(state.iteration, f"loss {loss:.4g}")
            if state.iteration % training.validate_every == 0 or state.iteration == training.iterations:
                with _Timed(state, "validation"):
                    _validate(training, state, note)
            state.seconds = time.monotonic() - started
            if pending or time.monotonic() - saved > training.checkpoint_every:
                _check_finite(training, state)
                state.save(checkpoint)
                saved = time.monotonic()
            if pending:
                break
    if not math.isfinite(state.best_loss):
        raise DivergedError(
            f"{training.name}: adaptation diverged in every validation up to iteration {state.iteration}: {_REMEDY}"
        )
    if state.iteration < training.iterations:
        sys.stderr.write(
            f"{training.name}: stopped after {state.iteration} iterations: no validation was better than that of iteration "
            f"{state.best_iteration}\n"
        )
    state.save(checkpoint)  # a later phase may be interrupted, and this one must not be trained again
    return Trained(
        params=state.best,
        iterations=state.iteration,
        best_iteration=state.best_iteration,
        history=state.history,
        seconds=state.seconds,
        seconds_by_part=state.seconds_by_part,
    )


def _out_of_patience(training: Training, state: State) -> bool:
    """Whether `patience` validations have passed since the best one. A function of the checkpoint's content, so it stays true."""
    since_best = (state.iteration - state.best_iteration) // training.validate_every
    return training.patience is not None and since_best >= training.patience


def _profiler(training: Training) -> AbstractContextManager[torch.profiler.profile | None]:
    """A profiler of some iterations after the first ones, if a trace is wanted."""
    path = training.trace
    if path is None:
        return nullcontext()
    path.parent.mkdir(parents=True, exist_ok=True)
    profiled: AbstractContextManager[torch.profiler.profile] = torch.profiler.profile(
        schedule=torch.profiler.schedule(wait=3, warmup=2, active=_ITERATIONS_TRACED, repeat=1),
        on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(path)),
    )
    return profiled


def begin(training: Training, params: Params) -> State:
    """The state before the first iteration."""
    flat = torch.cat([value.to(training.device).flatten() for value in params.values()])
    parts = flat.split([value.numel() for value in params.values()])
    views = {name: part.view(value.shape) for (name, value), part in zip(params.items(), parts, strict=True)}
    step = torch.zeros((), device=flat.device if _fused(flat) else None)
    return State(
        flat=flat,
        params=views,
        adam={"step": step, "mean": torch.zeros_like(flat), "square": torch.zeros_like(flat)},
        best={name: value.clone() for name, value in views.items()},
        losses=torch.zeros(training.record_every, training.meta_batch_size, device=training.device),
    )


def _batches(training: Training, start: int) -> Iterator[TaskBatch]:
    """The meta-batches of the iterations from `start` on, drawn many at a time."""
    size, first, together = training.meta_batch_size, start, 1
    while first < training.iterations:
        count = min(together, training.iterations - first)
        drawn = training.distribution.train(training.episode, first * size, count * size).to(training.device)
        drawn = with_own_shots(drawn, training.episode, training.seed, Stream.TRAIN_SHOTS, first * size)
        yield from _parted(drawn, count)
        first += count
        together = max(1, min(_TASKS_DRAWN_TOGETHER // size, _BYTES_DRAWN_TOGETHER // (bytes_of(drawn) // count)))


def _parted(drawn: TaskBatch, count: int) -> Iterator[TaskBatch]:
    """So many batches of tasks that were drawn together, each stored as if it had been drawn alone.

    Matrix products round by the address of what they read. If a batch began wherever the one before it ends, a training that was
    interrupted, and so draws others together, would have other bits.
    """
    absent = [None] * count
    columns = (absent if tensor is None else _aligned(tensor.unflatten(0, (count, -1))) for tensor in vars(drawn).values())
    for tensors in zip(*columns, strict=True):
        yield TaskBatch(*tensors)


def _aligned(tensor: Tensor) -> Sequence[Tensor]:
    """The parts of a tensor [parts, …], each of which begins at an aligned address."""
    count, every = tensor[0].numel(), _ALIGNMENT // tensor.itemsize
    room = tensor.new_empty(len(tensor), math.ceil(count / every) * every)[:, :count].unflatten(1, tensor.shape[1:])
    parts: Sequence[Tensor] = room.copy_(tensor).unbind()
    return parts


def _next(state: State, batches: Iterator[TaskBatch]) -> TaskBatch:
    with _Timed(state, "data"):
        return next(batches)


def step(training: Training, state: State, batch: TaskBatch) -> None:
    """One iteration on a meta-batch; the caller counts it."""
    with _Timed(state, "gradient"):
        result = training.objective(state.params, batch, state.iteration)
    with _Timed(state, "optimizer"):
        gradient = joined([result.gradient[name] for name in state.params])
        if training.outer.clip_norm is not None:
            gradient = gradient * (training.outer.clip_norm / gradient.norm()).clamp(max=1)
        _adam_step(state, gradient, _outer_lr(training, state.iteration))
        if training.project is not None:
            training.project(state.params)
        state.losses[state.iteration % training.record_every] = result.losses
        state.notes = result.notes


def _fused(flat: Tensor) -> bool:
    return flat.device.type != "meta"  # meta tensors have no fused Adam


def _adam_step(state: State, gradient: Tensor, lr: float) -> None:
    """Adam by PyTorch's function, since the overhead of its optimizer exceeds the step itself."""
    step, mean, square = ([value] for value in state.adam.values())
    adam(
        [state.flat], [gradient], mean, square, [], step, fused=_fused(state.flat),
        amsgrad=False, beta1=0.9, beta2=0.999, lr=lr, weight_decay=0.0, eps=1e-8, maximize=False,
    )  # fmt: skip


class _Timed:
    """Adds the seconds of a block to a part's; a class, since a generator would take longer than some of the blocks."""

    def __init__(self, state: State, part: str):
        self._seconds, self._part = state.seconds_by_part, part

    def __enter__(self) -> None:
        self._traced = torch.profiler.record_function(self._part) if torch.autograd.profiler._is_profiler_enabled else nullcontext()
        self._traced.__enter__()
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._part] += time.perf_counter() - self._start
        self._traced.__exit__(None, None, None)


def _outer_lr(training: Training, iteration: int) -> float:
    if training.outer.schedule == "constant":
        return training.outer.lr
    return training.outer.lr * 0.5 * (1 + math.cos(math.pi * iteration / training.iterations))


def _recent(training: Training, state: State) -> Tensor:
    """The losses since the last record, [iterations, tasks]."""
    return state.losses[: (state.iteration - 1) % training.record_every + 1]


def _mean_loss(training: Training, state: State) -> float:
    _check_finite(training, state)
    return _recent(training, state).mean().item()


def _check_finite(training: Training, state: State) -> None:
    recent = _recent(training, state)
    bad = (~recent.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        iteration = state.iteration - len(recent) + row
        task = iteration * training.meta_batch_size + column
        raise DivergedError(
            f"{training.name}: the loss of meta-train task {task} is {recent[row, column].item()} in iteration {iteration}: "
            "expected a finite number; a smaller train.inner.lr or train.outer.lr, or train.outer.clip_norm, may help"
        )


def _validate(training: Training, state: State, note: Callable[[str, float], None]) -> None:
    curves = training.validate(state.params)
    for name, value in curves.items():
        if math.isfinite(value):  # a curve has no point if adaptation diverged
            note(name, value)
    if training.snapshots is not None:
        save_checkpoint(training.snapshots / f"{state.iteration}.safetensors", state.params, {})
    loss = curves["validation_loss"]
    state.diverged = 0 if math.isfinite(loss) else state.diverged + 1
    if state.diverged:
        sys.stderr.write(f"{training.name}: adaptation diverged in the validation after iteration {state.iteration}\n")
    if state.diverged == _MOST_DIVERGED:
        raise DivergedError(
            f"{training.name}: adaptation diverged in {_MOST_DIVERGED} validations in a row, up to iteration {state.iteration}: "
            f"{_REMEDY}"
        )
    if math.isfinite(loss) and loss < state.best_loss:
        state.best_loss, state.best_iteration = loss, state.iteration
        state.best = {name: value.clone() for name, value in state.params.items()}


@contextmanager
def _signals_deferred() -> Iterator[list[int]]:
    """Collect interrupt and termination signals within a block; the first one takes effect after it."""
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
