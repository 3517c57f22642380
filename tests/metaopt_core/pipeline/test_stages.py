"""The table of stages: what is in it is there, and each depends on what it computes with and on nothing else."""

import importlib.metadata
import pkgutil
from typing import Any

import pytest

from metaopt_core.pipeline.stages import PUBLISHING, STAGES, flatten
from metaopt_core.spec.method import named_method
from metaopt_core.spec.pipeline import PipelineSpec
from tests.made_outputs import sinusoid_spec
from tests.small import SMALL_CONV


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_a_module_with_a_function_of_its_name_and_comes_after_what_it_reads(name: str) -> None:
    stage, names = STAGES[name], list(STAGES)
    assert callable(pkgutil.resolve_name(stage.task).fn)
    assert stage.task == f"tasks.{name}:{name}"
    assert all(names.index(upstream) < names.index(name) for upstream in stage.upstream)
    assert all(importlib.metadata.version(library) for library in stage.libraries)


def test_the_libraries_of_what_a_spec_chooses_count_where_they_compute() -> None:
    def libraries(spec: PipelineSpec) -> dict[str, set[str]]:
        return {name: {*stage.libraries, *stage.brings(spec)} for name, stage in STAGES.items()}

    waves = sinusoid_spec("waves")
    assert libraries(waves)["generate"] == {"numpy", "scipy"}
    assert "matplotlib" not in libraries(waves)["evaluate"]  # figures are no results
    assert libraries(SMALL_CONV)["generate"] == {"numpy", "scipy", "pillow"}
    train = waves.train.model_dump(mode="json") | {"baselines": ["pooled_boosting", "random_forest"]}
    fitted = libraries(sinusoid_spec("fitted", train=train))
    assert {"lightgbm"} == fitted["train"] & {"lightgbm", "pillow"}
    assert "scikit-learn" in fitted["evaluate"]
    assert named_method("pretrained_logistic").libraries == ("scikit-learn",)
    table = sinusoid_spec("table", generate={"distribution": "table", "path": "a.csv", "task": "a", "target": "b"})
    assert libraries(table)["generate"] == {"numpy", "scipy", "pandas", "pyarrow", "fsspec", "sqlalchemy"}
    assert PUBLISHING == "log"


def changed(path: str, value: Any) -> PipelineSpec:
    body = SMALL_CONV.model_dump()
    *blocks, key = path.split(".")
    inner = body
    for block in blocks:
        inner = inner[block]
    inner[key] = value
    return PipelineSpec.model_validate(body)


@pytest.mark.parametrize(
    ("path", "value", "concerned"),
    [
        ("generate.rotations", 1, {"generate"}),
        ("generate.folder", "/elsewhere", set()),
        ("generate.seed", 5, {"generate"}),
        ("seed", 5, {"generate", "train"}),
        ("train.iterations", 7, {"train"}),
        ("train.checkpoint_every", 5.0, set()),
        ("train.baselines", ["pretrained"], {"train", "evaluate"}),
        ("evaluate.steps", 1, {"evaluate"}),
        ("evaluate.shots", 1, set()),  # as it was, only said
        ("train.shots", 2, {"train", "evaluate"}),
        ("train.inner.lr", 0.2, {"train", "evaluate"}),
        ("log.experiment", "x", {"log"}),
        ("log.register_as", "x", set()),  # a version is made of what is there
        ("name", "another", {"log"}),
        ("device", "cpu", set()),
        ("schedule", {"every": "6h"}, set()),
    ],
)
def test_a_value_concerns_the_stages_that_compute_with_it(
    path: str, value: Any, concerned: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(SMALL_CONV.generate), "data", lambda self: "digest")
    other = changed(path, value)
    differing = {name for name, stage in STAGES.items() if stage.depends_on(SMALL_CONV) != stage.depends_on(other)}
    assert differing == concerned


def test_components_are_those_that_a_stage_computes_with() -> None:
    train, evaluate = (set(STAGES[name].components(SMALL_CONV)) for name in ("train", "evaluate"))
    assert "metaopt_core.methods.random_init:RandomInitialization" in evaluate - train  # it is not trained
    assert "metaopt_core.evaluation.metrics.accuracy:accuracy" in evaluate - train
    assert train < evaluate
    assert STAGES["generate"].components(SMALL_CONV) == ("metaopt_core.distributions.omniglot:OmniglotSpec",)


def test_nested_values_are_flat_with_dotted_keys() -> None:
    assert flatten("a", {"b": 1, "c": {"d": [2], "e": {}}}) == {"a.b": 1, "a.c.d": [2]}
