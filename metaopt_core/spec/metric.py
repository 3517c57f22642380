"""The contract of a metric: one function of predictions, targets and weights to one number a task, and how to read that number."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from metaopt_core.spec.components import METRICS, find, known
from metaopt_core.spec.distribution import Targets

Form = Literal["number", "percent"]


LOSS = "loss"
"""The metric of all kinds of tasks, which training minimizes; it is always measured."""


@dataclass(frozen=True)
class Metric:
    """What methods are judged by.

    name: in tables, results and MLflow. title: in words. of: (outputs [tasks, queries, outputs], targets [tasks, queries,
    outputs] or [tasks, queries] class labels, weight [tasks, queries] or none) → [tasks]. targets: the kind of tasks that it
    judges. larger_is_better: its direction. form: how it is written, `percent` for shares. unit: of a number, if it has one.
    rank: the metric with the smallest one is what methods are compared by. pooled: it is a number of all tasks' queries together
    (they are handed over as one task). follows_reduction: it is multiplied by what `train.reduction` multiplies the training's
    loss by. power: 1 where it is in the target's unit, so that results are, too. takes: what `of` takes besides, by its names:
    `support_mean` [tasks, outputs]. about: what it says, in words that continue its title, for reports.
    """

    name: str
    title: str
    of: Callable[..., Any]
    targets: Targets
    larger_is_better: bool = False
    form: Form = "number"
    unit: str = ""
    rank: float = 50
    pooled: bool = False
    follows_reduction: bool = False
    power: int = 0
    takes: tuple[Literal["support_mean"], ...] = ()
    about: str = ""

    @property
    def __module__(self) -> str:  # type: ignore[override]
        """The module of its function, which computes it."""
        return str(self.of.__module__)

    def component_name(self) -> str:
        return str(self.of.__name__)


def metric(**declared: Any) -> Callable[[Callable[..., Any]], Metric]:
    """Make a metric from a function, whose name it takes unless `name` is given."""

    def of(function: Callable[..., Any]) -> Metric:
        return Metric(**{"name": function.__name__, "of": function, **declared})

    return of


def metric_names() -> tuple[str, ...]:
    """The names of the shipped metrics that have a number for every task."""
    return tuple(dict.fromkeys(one.name for one in known(METRICS, Metric).values() if not one.pooled))


def _path(path: str) -> str:
    find(METRICS, Metric, path)
    return path


class _Schema:
    """The names, looked up only when a schema is made, because metrics are components and import this module."""

    def __get_pydantic_json_schema__(self, *_: Any) -> dict[str, Any]:
        return {"anyOf": [{"enum": sorted(metric_names(), reverse=True)}, {"type": "string"}]}


MetricName = Annotated[str, _Schema()]
"""The name of a shipped metric or of one of the user's; the pipeline as a whole knows which of them its tasks have."""
MetricPath = Annotated[str, AfterValidator(_path)]
