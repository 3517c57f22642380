"""The contract of a method: its declared side (`metaopt_core.spec.method`), how it is trained, and how it adapts and predicts.

A shipped method is a module of this package, which is scanned; a user's method is named by its import path in `train.baselines`.
Planning imports these modules, so they import torch only inside the functions that compute.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, cast

from metaopt_core.progress import bar
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.method import MethodInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from metaopt_core.distributions.batch import TaskBatch, TaskDistribution
    from metaopt_core.networks.network import Params
    from metaopt_core.spec.pipeline import PipelineSpec  # all components; what a logged model takes along needs none
    from metaopt_core.spec.train import TrainSpec
    from metaopt_core.training.phase import Phase

Predict = Callable[["Tensor", "Tensor | None"], "Tensor"]
"""Queries [tasks, queries, …] and their weights [tasks, queries] → outputs [tasks, queries, outputs], of one method that has seen
the support sets. Weights matter where queries are normalized together."""

TOGETHER, INDUCTIVE, COLLECTED = "", "inductive_", "collected_"
"""By whose statistics queries are normalized, as it stands before the names of measures: all queries' own, those of the support set
and the query, and those collected on meta-train tasks."""

DEVIATION = "deviation"
"""The key of a Predict that gives the standard deviations [tasks, queries, outputs] of predicted targets, beside TOGETHER; only of
methods whose predictions are distributions, and only in regression."""


@dataclass(frozen=True)
class Setting:
    """What a method is trained or evaluated on: the pipeline, and the distribution in memory with the shape of its tasks."""

    spec: "PipelineSpec"
    shape: TaskShape
    distribution: "TaskDistribution"


class Adapter(Protocol):
    """A method that is ready for tasks.

    steps: how many steps it takes; one if it is solved in closed form. inner_lr: the step size; NaN if there are no gradient
    steps, or if it is learned.
    """

    @property
    def steps(self) -> int: ...

    @property
    def inner_lr(self) -> float: ...

    def tasks_at_once(self, tasks: "TaskBatch") -> int:
        """How many tasks are fastest to compute together. Results don't depend on it."""

    def to(self, device: "torch.device") -> Self:
        """The same, with its parameters on a device."""

    def on(self, setting: Setting) -> Self:
        """The same for the tasks of another setting, which may have other ways."""

    def adapted(self, tasks: "TaskBatch") -> Iterator[Mapping[str, Predict]]:
        """What it predicts after 0, 1, … `steps` steps on the support sets, in each way of normalizing that there is for it.

        TOGETHER is always there; DEVIATION if predictions are distributions.
        """


class Method(MethodInfo):
    """Base of all methods. A subclass declares its name, and is a component that a spec may name."""

    @property
    def can_be_logged(self) -> bool:
        return self.of_model is not None or type(self).served is not Method.served

    def phase(self, setting: Setting) -> "Phase":
        """How it is trained; called only if `trained` is true."""
        raise NotImplementedError

    def fit(self, setting: Setting) -> "Params":
        """What it is fitted to without gradient steps; asked only where `fitted` is true. A text is a tensor of its bytes.

        All choices are made on meta-validation tasks. Empty if it isn't possible in this setting.
        """
        raise NotImplementedError

    def prepare(self, setting: Setting, trained: "Mapping[str, Params]") -> Adapter | None:
        """The method ready for tasks; none if it isn't possible in this setting.

        trained: the parameters to adapt of every method that was trained or fitted, by its key, on the CPU.
        """
        raise NotImplementedError

    def served(self, train: "TrainSpec", shape: TaskShape, inner_lr: float, steps: int, params: "Params") -> Adapter:
        """The method as a logged model has it, from its own parameters alone; asked where `can_be_logged` is true, and not of those
        that adapt the pipeline's own. inner_lr, steps: with which it was evaluated."""
        raise NotImplementedError


def compared(spec: "PipelineSpec") -> tuple[Method, ...]:
    """The methods of a pipeline, in the order of tables."""
    return cast("tuple[Method, ...]", spec.methods)


def fit_all(setting: Setting) -> "dict[Method, tuple[Params, float]]":
    """What each method that is fitted is fitted to, and the seconds that it took."""
    from metaopt_core.meta.parallel import one_thread

    methods, found = [method for method in compared(setting.spec) if method.fitted], {}
    if not methods:
        return {}
    with bar(len(methods), "fitting baselines") as progress, one_thread():  # so that no result depends on the number of cores
        for method in methods:
            started = time.monotonic()
            found[method] = method.fit(setting), time.monotonic() - started
            progress.update(len(found), method.label(setting.spec.train))
    return found


def parameters_file(spec: "PipelineSpec", method: MethodInfo) -> str:
    """Where `train` keeps what a method is trained or fitted to; that of the pipeline's own is `parameters.safetensors`."""
    key = method.key(spec.train)
    return f"{'parameters' if key == spec.learned.key(spec.train) else key}.safetensors"
