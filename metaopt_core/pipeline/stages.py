"""The stages as data: the one table of all stages and what the result of each depends on.

A stage is a module of `tasks` with a function of the same name, and an entry here. The flows, the command line and the plan are
made from this table; no other code lists the stages. Nothing here imports code that computes, so that planning is quick.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from metaopt_core.spec.addresses import tracking_address
from metaopt_core.spec.method import MethodInfo
from metaopt_core.spec.metric import Metric
from metaopt_core.spec.networks import ModuleSpec
from metaopt_core.spec.pipeline import PipelineSpec


@dataclass(frozen=True)
class Stage:
    """A stage and its properties.

    name: also the name of its module in `tasks`, and of its function there. about: what it does, in one line. upstream: the stages
    whose outputs it reads. depends_on: the values of a spec that its result depends on, flat, with defaults filled in, without
    where data are and what can't change the result. libraries: those that compute it in every pipeline. brings: those of what
    a spec chooses. components: import paths (`module:name`) of
    what a spec chooses by name, to which no import in the code leads. follows: modules that only record for other stages, but whose
    code makes this one's result (`code.NOT_FOLLOWED`). lacks: in words, what a valid output (its `extra`) is missing of what a spec
    asks for beyond `depends_on`; none if nothing. trains: it keeps checkpoints, from which it continues, and can be profiled.
    records: it has the MLflow run of the execution open while it works. publishes: it also completes that run.
    """

    name: str
    about: str
    upstream: tuple[str, ...]
    depends_on: Callable[[PipelineSpec], Mapping[str, Any]]
    libraries: tuple[str, ...]
    brings: Callable[[PipelineSpec], Iterable[str]] = lambda _: ()
    components: Callable[[PipelineSpec], Iterable[str]] = lambda _: ()
    follows: tuple[str, ...] = ()
    lacks: Callable[[PipelineSpec, Mapping[str, Any]], str | None] = lambda _spec, _extra: None
    trains: bool = False
    records: bool = False
    publishes: bool = False

    @property
    def task(self) -> str:
        """Import path of the Prefect task that carries it out."""
        return f"tasks.{self.name}:{self.name}"


def _generate(spec: PipelineSpec) -> dict[str, Any]:
    data = spec.generate.data()
    digests = flatten("data", data) if isinstance(data, Mapping) else {"data": data}
    return flatten("generate", spec.generate.identity()) | {"generate.seed": spec.data_seed} | digests


def _train(spec: PipelineSpec) -> dict[str, Any]:
    return flatten("train", spec.train.model_dump(mode="json", exclude={"checkpoint_every"})) | {
        "seed": spec.seed,
        "train.validation.shots": spec.validation_shots,
        "train.validation.fewest_shots": spec.validation_fewest_shots,
        "train.validation.queries": spec.validation_queries,
        "train.pretrain_iterations": spec.pretrain_iterations,
        "train.baselines": sorted(_methods(spec, (one for one in spec.methods if _has_parameters(one) and one.baseline))),
    }


def _has_parameters(method: MethodInfo) -> bool:
    return method.trained or method.fitted


def _evaluate(spec: PipelineSpec) -> dict[str, Any]:
    return flatten("evaluate", spec.evaluate.model_dump(mode="json")) | {
        "evaluate.shots": spec.evaluate_shots if len(spec.evaluated_shots) == 1 else list(spec.evaluated_shots),
        "evaluate.repeats": spec.evaluate.repeats if spec.evaluate.repeats > 1 else None,
        "evaluate.queries": spec.evaluate_queries,
        "evaluate.inner_lr": spec.evaluate_inner_lr,
        "evaluate.baseline_lrs": list(spec.baseline_lrs),
        # Which ones, and in which order: one file may define several, and the code counts by files.
        "evaluate.methods": _methods(spec, spec.methods),
        "evaluate.metrics": [f"{_import_path(metric)} as {metric.name}" for metric in spec.metrics],
    }


def _methods(spec: PipelineSpec, methods: Iterable[MethodInfo]) -> list[str]:
    """Methods by import path, and by what results call them."""
    return [f"{_import_path(method)} as {method.key(spec.train)}" for method in methods]


def _log(spec: PipelineSpec) -> dict[str, Any]:
    address = tracking_address(spec.log.tracking_uri) or "embedded"
    return flatten("log", spec.log.model_dump(mode="json", exclude={"register_as"})) | {
        "name": spec.name,
        "log.tracking_uri": address,
    }


def _unregistered(spec: PipelineSpec, extra: Mapping[str, Any]) -> str | None:
    """A version can be made from an existing output, so whether there is one is not part of its identity."""
    name = spec.log.register_as
    return f"no version of {name} yet" if name and extra.get("registered_as") != name else None


def _components(spec: PipelineSpec, *chosen: Any) -> tuple[str, ...]:
    """Import paths of the distribution, of what it names, and of other chosen components."""
    return tuple(sorted({*spec.generate.code, *(_import_path(component) for component in (spec.generate, *chosen))}))


def _libraries(methods: Iterable[MethodInfo]) -> set[str]:
    return {library for method in methods for library in method.libraries}


def _import_path(component: Any) -> str:
    name = component.component_name() if isinstance(component, Metric) else type(component).__qualname__
    return f"{component.__module__}:{name}"


def _network(spec: PipelineSpec) -> tuple[str, ...]:
    """The user's own network."""
    return (spec.train.model.path,) if isinstance(spec.train.model, ModuleSpec) else ()


STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="generate",
            about="Materialize the task distribution p(T) and its held-out tasks.",
            upstream=(),
            depends_on=_generate,
            libraries=("numpy", "scipy"),
            brings=lambda spec: spec.generate.libraries,
            components=_components,
        ),
        Stage(
            name="train",
            about="Meta-train, and train the baselines.",
            upstream=("generate",),
            depends_on=_train,
            libraries=("numpy", "scipy", "torch"),
            brings=lambda spec: _libraries(filter(_has_parameters, spec.methods)),
            components=lambda spec: _components(spec, *filter(_has_parameters, spec.methods)) + _network(spec),
            trains=True,
            records=True,
        ),
        Stage(
            name="evaluate",
            about="Adapt to every meta-test task, with the learned parameters and with each baseline.",
            upstream=("generate", "train"),
            depends_on=_evaluate,
            libraries=("numpy", "torch", "pandas", "scipy"),
            brings=lambda spec: _libraries(spec.methods),
            components=lambda spec: _components(spec, *spec.methods, *spec.metrics) + _network(spec),
        ),
        Stage(
            name="log",
            about="Complete the MLflow run of this execution: metrics, tables, figures, the model.",
            upstream=("generate", "train", "evaluate"),
            depends_on=_log,
            libraries=("mlflow", "jinja2"),
            lacks=_unregistered,
            follows=("metaopt_core.tracking", "metaopt_core.reporting"),
            records=True,
            publishes=True,
        ),
    )
}


PUBLISHING = next(stage.name for stage in STAGES.values() if stage.publishes)
"""The stage that completes the MLflow run of an execution."""


def flatten(prefix: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(f"{prefix}.{key}", value) if isinstance(value, Mapping) else {f"{prefix}.{key}": value}
    return flat
