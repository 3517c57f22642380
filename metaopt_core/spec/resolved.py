"""A pipeline's spec with all defaults filled in; no default is written anywhere else."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field

from metaopt_core.spec.base import Repetitions, Seed, Spec, is_import_path
from metaopt_core.spec.components import METHODS, METRICS, find, known
from metaopt_core.spec.evaluate import EvaluateSpec, ShiftSpec
from metaopt_core.spec.generate import GenerateSpec
from metaopt_core.spec.log import LogSpec
from metaopt_core.spec.method import MethodInfo, named_method
from metaopt_core.spec.metric import LOSS, Metric
from metaopt_core.spec.networks import ModuleSpec
from metaopt_core.spec.schedule import ScheduleSpec
from metaopt_core.spec.sweep import SweepSpec
from metaopt_core.spec.train import TrainSpec


class Resolved(Spec):
    """One pipeline with all defaults filled in, each of whose values is valid by itself."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="The pipeline's key in pipelines.yaml.")
    description: str = Field("", description="One line for `metaopt list`.")
    seed: Seed = Field(0, description="Every random number is a function of it.")
    seeds: Repetitions = Field(
        1,
        description="How often it is trained, with seeds seed, seed + 1, … on the same data; with more than one, results are also "
        "averaged over the seeds.",
    )
    splits: Repetitions = Field(
        1,
        description="How often it runs on other data (splits and held-out tasks), with generate.seed, generate.seed + 1, …; with "
        "more than one, results are also averaged over them.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto` is the GPU if there is one, else the CPU. Not part of a result's identity."
    )
    generate: GenerateSpec = Field(description="Stage 1: the task distribution.")
    train: TrainSpec = Field(description="Stage 2: meta-training.")
    evaluate: EvaluateSpec = Field(EvaluateSpec(), description="Stage 3: adaptation to new tasks.")
    log: LogSpec = Field(LogSpec(), description="Stage 4: the MLflow run.")
    sweep: SweepSpec | None = Field(None, description="What `metaopt sweep` searches; `metaopt run` ignores it.")
    schedule: ScheduleSpec | None = Field(None, description="When `metaopt serve` runs it; none means only on demand.")

    def located(self, environment: Mapping[str, str]) -> Self:
        """The same, with the places of data that environment variables name. Raises UserError."""
        generate = self.generate.located(environment)
        return self if generate is self.generate else self.model_copy(update={"generate": generate})

    # Resolved defaults, in one place.

    @property
    def data_seed(self) -> int:
        """The seed of splits and held-out tasks."""
        return self.seed if self.generate.seed is None else self.generate.seed

    @property
    def repetitions(self) -> int:
        return self.seeds * self.splits

    @property
    def validation_shots(self) -> int:
        return self.train.validation.shots or self.train.most_shots

    @property
    def validation_fewest_shots(self) -> int | None:
        """The fewest support examples of a validation task, if each draws its own number."""
        return None if self.train.validation.shots else self.train.fewest_shots

    @property
    def validation_queries(self) -> int:
        return self.train.validation.queries or self.train.queries

    @property
    def validation_steps(self) -> int:
        return self.train.validation.steps or (self.train.inner.steps if self.train.learns_sizes else 10)

    @property
    def evaluate_shots(self) -> int:
        """The support examples (per class) with which methods are evaluated, or the most of them."""
        return self.evaluated_shots[-1]

    @property
    def evaluated_shots(self) -> tuple[int, ...]:
        """Every number of support examples (per class) with which methods are evaluated, the smallest first."""
        shots = self.evaluate.shots or self.train.most_shots
        return shots if isinstance(shots, tuple) else (shots,)

    @property
    def evaluate_queries(self) -> int:
        return self.evaluate.queries or self.train.queries

    @property
    def shifted(self) -> "dict[str, Self]":
        """The variants of the test tasks, each as a pipeline that evaluates nothing else; only for `evaluate`."""
        return {name: self.shifted_by(shift) for name, shift in self.shifts.items()}

    @property
    def shifts(self) -> dict[str, ShiftSpec]:
        return {name: shift for name, shift in (self.evaluate.shifted or {}).items() if shift is not None}

    @property
    def evaluate_inner_lr(self) -> float:
        return self.evaluate.inner_lr or self.train.inner.lr

    @property
    def pretrain_iterations(self) -> int:
        return self.train.pretrain_iterations or self.train.iterations

    @property
    def methods(self) -> tuple[MethodInfo, ...]:
        """The methods that are compared, in the order of tables."""
        shipped = [method() for method in known(METHODS, MethodInfo).values()]
        named = [named_method(name) for name in self.train.baselines or () if is_import_path(name)]
        wanted = self.generate.usual_baselines if self.train.baselines is None else self.train.baselines
        compared = [
            method
            for method in shipped
            if not (method.optional and method.name not in wanted) and method.refusal(self.train, self.generate.targets) is None
        ]
        return tuple(sorted(compared + named, key=lambda method: method.rank))

    @property
    def import_paths(self) -> tuple[str, ...]:
        """The import paths of the user's own components: network, distribution, methods, metrics."""
        model = self.train.model
        named = [self.generate.distribution, *(self.train.baselines or ()), *self.evaluate.metrics]
        named += [model.path] if isinstance(model, ModuleSpec) else []
        return tuple(name for name in named if is_import_path(name))

    @property
    def learned(self) -> MethodInfo:
        """The method that the pipeline learns, which the others are compared with."""
        return next(method for method in self.methods if not method.baseline and method.trained)

    @property
    def model_method(self) -> str:
        """The key of the method by which the logged model adapts."""
        if self.evaluate.model not in (None, "best"):
            return str(self.evaluate.model)
        return next(method.key(self.train) for method in self.methods if method.of_model == self.evaluate.adaptation)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics for such tasks; methods are compared by the first."""
        named: list[Metric] = [find(METRICS, Metric, name) for name in self.evaluate.metrics]
        judged_by = self.generate.judged_by
        usual = [one for one in known(METRICS, Metric).values() if judged_by is None or one.name in (*judged_by, LOSS)]
        fitting = [one for one in (*usual, *named) if one.targets == self.generate.targets]
        first = {name: place - len(judged_by) for place, name in enumerate(judged_by)} if judged_by else {}
        return tuple(sorted(fitting, key=lambda one: first.get(one.name, max(0.0, one.rank))))

    @property
    def baseline_lrs(self) -> tuple[float, ...]:
        times = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
        return self.evaluate.baseline_lrs or tuple(float(f"{factor * self.evaluate_inner_lr:.6g}") for factor in times)

    @property
    def horizon(self) -> int:
        """The number of adaptation steps with which the model is used, and at which methods are compared."""
        return min(self.validation_steps, self.evaluate.steps)

    def shifted_by(self, shift: ShiftSpec) -> Self:
        """The pipeline that evaluates a variant of the test tasks and nothing else."""
        protocol = {"shots": shift.shots or self.evaluate_shots, "queries": shift.queries or self.evaluate_queries, "shifted": None}
        changes = {
            "generate": self.generate.shifted(shift.changes),
            "train": self.train.model_copy(update={"ways": shift.ways or self.train.ways}),
            "evaluate": self.evaluate.model_copy(update=protocol),
        }
        return self.model_copy(update=changes)
