"""What is measured, against whom, and what is aimed at: the whole table as frozen data."""

from dataclasses import dataclass, replace
from typing import Literal

OURS = "metaopt"
LOOPS = ("higher", "torchopt", "learn2learn")
PYTORCH = (*LOOPS, "torch.func")
JAX = "jax"

OUTER_LR = 1e-3  # of Adam
HIDDEN = (40, 40)
FILTERS = 64


@dataclass(frozen=True)
class MetaStep:
    """One meta-step's work. ways: none is the sinusoid with the 40-40 network, else Omniglot with the paper's convolutional one."""

    ways: int | None
    shots: int
    queries: int
    tasks: int
    inner_steps: int
    inner_lr: float

    @property
    def kind(self) -> Literal["sinusoid", "omniglot"]:
        return "omniglot" if self.ways else "sinusoid"

    @property
    def support(self) -> int:
        """Support examples of a task."""
        return (self.ways or 1) * self.shots

    @property
    def query(self) -> int:
        """Query examples of a task."""
        return (self.ways or 1) * self.queries

    @property
    def steps_at_once(self) -> int:
        """Meta-steps whose tasks are drawn together, by every contender alike: as many as the pipeline does, or one where a step
        takes long and drawing is a thousandth of it."""
        return 1 if self.ways else max(1, 1024 // self.tasks)


@dataclass(frozen=True)
class Target:
    """Our time is to be at most `at_most` times that of the fastest of `against`."""

    against: tuple[str, ...]
    at_most: float


@dataclass(frozen=True)
class Speed:
    """The time of a whole meta-step: drawing tasks, meta-gradient, Adam."""

    id: str
    title: str
    meta_step: MetaStep
    contenders: tuple[str, ...]
    targets: tuple[Target, ...]
    left_out: str = ""


@dataclass(frozen=True)
class Memory:
    """Peak memory above the idle process by inner steps; ours at the last of `steps` at most `at_most` times that at `base`."""

    id: str
    title: str
    meta_step: MetaStep
    contenders: tuple[str, ...]
    steps: tuple[int, ...]
    base: int
    at_most: float


@dataclass(frozen=True)
class Series:
    """Our time a meta-step along one axis."""

    title: str
    axis: Literal["inner_steps", "tasks"]
    meta_step: MetaStep
    values: tuple[int, ...]

    def at(self, value: int) -> MetaStep:
        return replace(self.meta_step, inner_steps=value) if self.axis == "inner_steps" else replace(self.meta_step, tasks=value)


@dataclass(frozen=True)
class Growth:
    """The time is to grow along a straight line: no point further from it than `within` of the line's value."""

    id: str
    title: str
    series: tuple[Series, ...]
    within: float


@dataclass(frozen=True)
class FirstStep:
    """Time to the first step, fresh process, cold caches; ours at the last of `steps` at most `at_most` times that at the first."""

    id: str
    title: str
    meta_step: MetaStep
    contenders: tuple[str, ...]
    steps: tuple[int, ...]
    at_most: float


Workload = Speed | Memory | Growth | FirstStep

SINUSOID = MetaStep(ways=None, shots=10, queries=10, tasks=25, inner_steps=1, inner_lr=0.01)
OMNIGLOT_5 = MetaStep(ways=5, shots=1, queries=1, tasks=32, inner_steps=1, inner_lr=0.4)
OMNIGLOT_20 = MetaStep(ways=20, shots=1, queries=1, tasks=16, inner_steps=5, inner_lr=0.1)

_NO_JAX = "jax takes 20 to 52 s a step here: XLA's grouped convolutions on the CPU"
_POWERS = tuple(2**exponent for exponent in range(7))

WORKLOADS: tuple[Workload, ...] = (
    Speed(
        "W1",
        "sinusoid, 25 tasks, 10 shots, 1 inner step",
        SINUSOID,
        (OURS, *PYTORCH, JAX),
        (Target((JAX,), 1.0), Target(LOOPS, 1 / 40)),
    ),
    Speed(
        "W2",
        "sinusoid, 25 tasks, 10 shots, 5 inner steps",
        replace(SINUSOID, inner_steps=5),
        (OURS, *PYTORCH, JAX),
        (Target((JAX,), 1.0),),
    ),
    Speed(
        "W3",
        "Omniglot 5-way 1-shot, 32 tasks, 1 query a class, 1 inner step",
        OMNIGLOT_5,
        (OURS, *PYTORCH),
        (Target(PYTORCH, 0.40),),
        _NO_JAX,
    ),
    Speed(
        "W4",
        "Omniglot 5-way 1-shot, 32 tasks, 15 queries a class, 1 inner step",
        replace(OMNIGLOT_5, queries=15),
        (OURS, *PYTORCH),
        (Target(PYTORCH, 0.50),),
        _NO_JAX,
    ),
    Speed(
        "W5",
        "Omniglot 20-way 1-shot, 16 tasks, 1 query a class, 5 inner steps",
        OMNIGLOT_20,
        (OURS, *PYTORCH),
        (Target(PYTORCH, 0.40),),
        _NO_JAX,
    ),
    Memory(
        "W6",
        "peak memory by inner steps, Omniglot 5-way 1-shot, 8 tasks",
        replace(OMNIGLOT_5, tasks=8),
        (OURS, *PYTORCH),
        _POWERS[1:],
        base=8,
        at_most=1.3,
    ),
    Growth(
        "W7",
        "time by inner steps and by tasks",
        (
            Series("sinusoid, by inner steps", "inner_steps", SINUSOID, _POWERS),
            Series("sinusoid, by tasks", "tasks", SINUSOID, tuple(8 * power for power in _POWERS)),
            Series("Omniglot, 4 tasks, by inner steps", "inner_steps", replace(OMNIGLOT_5, tasks=4), _POWERS),
            Series("Omniglot, by tasks", "tasks", OMNIGLOT_5, tuple(8 * power for power in _POWERS)),
        ),
        within=0.15,
    ),
    FirstStep("W8", "time to the first step, cold caches, sinusoid", SINUSOID, (OURS, JAX), (5, 50), at_most=1.3),
)
