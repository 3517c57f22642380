"""The contract of a task distribution p(T): the part that needs no data.

This is the declared side, which parsing and planning use: the settings in `generate:`, what the tasks look like, what is
impossible, what a variant may change. `metaopt_core.distributions.contract` has the other side: how tasks are made and drawn. No
code outside a distribution asks which one it is.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field

from metaopt_core.spec.base import Impossibility, Seed, Spec

Targets = Literal["real", "classes"]


Tasks = Annotated[int, Field(ge=1, le=10**6)]  # they are stored


class HeldOut(Spec):
    """Tasks that are drawn once, in `generate`, and are the same for every model that is compared on them."""

    validation_tasks: Tasks = Field(200, description="Meta-validation tasks, which choose the best checkpoint.")
    test_tasks: Tasks = Field(1000, description="Meta-test tasks, which only `evaluate` uses.")


@dataclass(frozen=True)
class TaskShape:
    """What the tasks of a distribution look like.

    input_shape: of one example, without task and example dimensions. targets: real numbers, or classes, whose number is the ways of
    a task. outputs: the real numbers of a target; with classes there is one output for each way. target_names, target_means and
    target_scales: of each output, where tasks come with targets in other units than the data have: a target of the data is mean +
    scale · target.
    """

    input_shape: tuple[int, ...]
    targets: Targets
    outputs: int = 1
    target_names: tuple[str, ...] = ()
    target_means: tuple[float, ...] = ()
    target_scales: tuple[float, ...] = ()
    preparation: str = ""
    """How rows of the data become examples (`metaopt_core.distributions.preparing`), as JSON; empty if they are examples."""

    def outputs_for(self, ways: int | None) -> int:
        """The number of outputs of a network for tasks with this many ways."""
        return ways or self.outputs

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        names, means, scales = (tuple(values.get(name, ())) for name in ("target_names", "target_means", "target_scales"))
        return cls(
            tuple(values["input_shape"]), values["targets"], values["outputs"], names, means, scales, values.get("preparation", "")
        )


@dataclass(frozen=True)
class Asked:
    """What a pipeline asks of the tasks.

    episodes: shots and queries (per class, where there are classes), by the path of the block that asks. said: paths of those of
    validation and evaluation that the spec sets itself instead of inheriting them from training. trains: whether tasks with these
    ways are used for training, or only for evaluation.
    """

    ways: int | None
    episodes: Mapping[tuple[str, ...], tuple[int, int]]
    said: Set[tuple[str, ...]]
    trains: bool = True


class NoShift(Spec):
    """The shift of a distribution that can't be shifted."""


class DistributionSpec(Spec):
    """Base of the specs of all distributions: settings, and what is known about the tasks before there are any.

    A subclass gives `distribution` the type Literal["its name"] (a user's component is named by its import path), adds its
    settings, and overrides what differs.
    """

    noun: ClassVar[str] = "such tasks"
    """What messages call its tasks, in the plural."""

    resamples: ClassVar[bool] = False
    """Whether a held-out task can be drawn with other support examples (`Episode.repeat`), for `evaluate.repeats`."""

    judged_by: ClassVar[tuple[str, ...] | None] = None
    """The metrics of its tasks by their names, beside the loss, the one that methods are compared by first; none means all that
    fit, by rank."""

    usual_baselines: ClassVar[tuple[str, ...]] = ("pretrained", "protonet")
    """The baselines that are compared where `train.baselines` says nothing, as far as they apply."""

    libraries: ClassVar[tuple[str, ...]] = ()
    """The libraries, besides NumPy and SciPy, by which its tasks are made: their major versions are part of the identity."""

    not_identity: ClassVar[frozenset[str]] = frozenset()
    """Settings that say where data are, not what they are."""

    not_shown: ClassVar[frozenset[str]] = frozenset({"distribution", "held_out", "seed"})
    """Settings that a report leaves out of its line about the tasks."""

    Shift: ClassVar[type[Spec]] = NoShift
    """What a variant of the test tasks may change besides ways, shots and queries; every field is optional."""

    distribution: str = Field(description="Which p(T): where tasks come from.")
    seed: Seed | None = Field(
        None, description="Splits and held-out tasks are a function of it; none means the pipeline's seed (its first one)."
    )
    held_out: HeldOut = Field(HeldOut(), description="The tasks that are drawn once.")

    @classmethod
    def component_name(cls) -> str:
        """The name that selects it in a spec; empty for a base class."""
        names = get_args(cls.model_fields["distribution"].annotation)
        return str(names[0]) if len(names) == 1 else ""

    @property
    def targets(self) -> Targets:
        """Whether its tasks have real targets or classes, known without the data."""
        raise NotImplementedError

    @property
    def shape(self) -> TaskShape | None:
        """What its tasks look like, if the spec determines it; otherwise `generate` finds out."""
        return None

    @property
    def code(self) -> tuple[str, ...]:
        """Import paths of the user's code that a spec names beside the distribution itself: part of the identity."""
        return ()

    def identity(self) -> dict[str, Any]:
        """The settings that are part of the identity: what the tasks are, not where data are. `data` says what is in these."""
        return self.model_dump(mode="json", exclude=set(self.not_identity))

    def data(self) -> str | Mapping[str, str] | None:
        """A digest of the data that it will read, if it reads any; or one for each file, by its name.

        Raises UserError if they are missing.
        """
        return None

    def beside(self, folder: Path) -> Self:  # noqa: ARG002
        """The same, with relative paths resolved in this folder, which is that of the pipelines file."""
        return self

    def located(self, environment: Mapping[str, str]) -> Self:  # noqa: ARG002
        """The same, with the places of data that environment variables name. Raises UserError."""
        return self

    def impossibilities(self, asked: Asked) -> Iterator[Impossibility]:  # noqa: ARG002
        """What such a distribution can't provide, with the path from the pipeline's block to the key that has to change."""
        yield from ()

    def shift_refusals(self, changes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """Keys of a shift that it can't apply with the current settings, and why."""
        yield from ()

    def shift_keys(self, changes: Mapping[str, Any]) -> frozenset[str]:  # noqa: ARG002
        """The keys that a shift with these changes may have, besides ways, shots and queries."""
        return frozenset(type(self).Shift.model_fields)

    def shifted(self, changes: Mapping[str, Any]) -> "DistributionSpec":  # noqa: ARG002
        """The distribution of a shifted variant's test tasks. Raises pydantic's ValidationError."""
        return self
