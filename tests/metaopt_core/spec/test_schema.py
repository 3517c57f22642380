"""The JSON Schema for editors: in step with the models, right for what ships, and with an opinion on mistakes."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from metaopt_core.spec.document import read_file
from metaopt_core.spec.schema import file_schema

ROOT = Path(__file__).resolve().parents[3]


def errors(pipeline: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(file_schema())
    return [error.message for error in validator.iter_errors({"pipelines": {"x": pipeline}})]


def test_committed_schema_is_in_step_with_the_models() -> None:
    expected = json.dumps(file_schema(), indent=2, ensure_ascii=False) + "\n"
    assert (ROOT / "pipelines.schema.json").read_text() == expected, "metaopt schema > pipelines.schema.json brings it in step"


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(file_schema())


def test_shipped_pipelines_fit_the_schema_that_their_first_line_names() -> None:
    text = (ROOT / "pipelines.yaml").read_text()
    first = text.splitlines()[0]
    assert first == "# yaml-language-server: $schema=./pipelines.schema.json"
    root, mistakes = read_file(text, "pipelines.yaml")
    assert root is not None
    assert mistakes == []
    jsonschema.Draft202012Validator(json.loads((ROOT / "pipelines.schema.json").read_text())).validate(root.plain())


@pytest.mark.parametrize(
    "pipeline",
    [
        {"extends": "base"},
        {"extends": "base", "train": {"model": {"hidden": [4]}}},
        {"extends": "base", "train": {"model": {"filters": 4}, "outer": {"lr": 1}}},
        {"extends": "base", "generate": {"amplitude": [0, 1]}, "schedule": {"timezone": "UTC"}},
        {"generate": {"distribution": "omniglot", "rotations": 1}, "schedule": None},
        {"schedule": {"cron": "0 3 * * *", "timezone": "UTC"}},
        {"schedule": {"every": "6h"}},
        {"sweep": {"parameters": {"train.inner.lr": {"low": 0.1}, "train.model.name": {"choices": ["mlp", "conv4"]}}}},
    ],
)
def test_partial_block_fits(pipeline: Any) -> None:
    assert errors(pipeline) == []


@pytest.mark.parametrize(
    "pipeline",
    [
        {"name": "x"},
        {"sed": 1},
        {"seed": -1},
        {"device": "gpu"},
        {"train": {"outer": {"lrr": 1}}},
        {"train": {"outer": {"lr": 0}}},
        {"train": {"model": {"name": "mpl"}}},
        {"train": {"model": {"name": "conv4", "hidden": [4]}}},
        {"train": {"model": {"name": "mlp", "hidden": []}}},
        {"generate": {"distribution": "sinusoid", "rotations": 4}},
        {"generate": {"distribution": "omniglot", "rotations": 3}},
        {"schedule": {"cron": "0 3 * * *", "every": "6h"}},
        {"schedule": {"every": "6h", "timezone": "UTC"}},
        {"sweep": {"parameters": {"train.inner.lr": {"low": 0.1, "choices": [1, 2]}}}},
        {"sweep": {"parameters": {}}},
        3,
        None,
    ],
)
def test_mistake_does_not_fit(pipeline: Any) -> None:
    assert errors(pipeline) != []


@pytest.mark.parametrize(
    ("whole", "right"),
    [
        ({"include": "../pipelines.yaml"}, True),
        ({"include": ["a.yaml", "b.yaml"], "pipelines": {"x": {"extends": "y"}}}, True),
        ({"include": []}, False),
        ({"include": 3}, False),
        ({}, False),
    ],
)
def test_file_holds_pipelines_or_includes_them(whole: Any, right: bool) -> None:
    assert jsonschema.Draft202012Validator(file_schema()).is_valid(whole) is right


@pytest.mark.parametrize("name", ["My Waves", "-x", ""])
def test_name_of_a_pipeline_has_to_fit(name: str) -> None:
    validator = jsonschema.Draft202012Validator(file_schema())
    assert not validator.is_valid({"pipelines": {name: {"extends": "base"}}})


def test_every_key_of_a_pipeline_is_described() -> None:
    schema = file_schema()
    pipeline = schema["properties"]["pipelines"]["additionalProperties"]
    blocks = {"pipeline": pipeline, **schema["$defs"], "model": schema["$defs"]["TrainSpec"]["properties"]["model"]}
    bare = [
        f"{name}.{key}"
        for name, block in blocks.items()
        for key, value in block["properties"].items()
        if "description" not in value
    ]
    assert bare == []
    assert "required" not in json.dumps(pipeline["properties"]["train"])
