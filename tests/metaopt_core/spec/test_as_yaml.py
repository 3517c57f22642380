"""A written pipeline reads as it was: YAML 1.2 on both sides."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, example, given

from metaopt_core.spec.as_yaml import pipelines_yaml, spec_yaml
from metaopt_core.spec.document import read_file
from metaopt_core.spec.loader import SpecError, load
from metaopt_core.spec.pipeline import PipelineSpec
from tests.metaopt_core.spec.generated import TRICKY, anything, pipelines

SHIPPED = load(Path(__file__).resolve().parents[3] / "pipelines.yaml")
BLOCKS = [spec.model_dump(mode="json", exclude_unset=True, exclude={"name"}) for spec in SHIPPED.values()]


def read(text: str, folder: Path) -> dict[str, PipelineSpec]:
    file = folder / "pipelines.yaml"
    file.write_text(text)
    return load(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written")


@pytest.mark.parametrize("name", SHIPPED)
def test_written_pipeline_of_the_shipped_file_reads_as_the_same(name: str, tmp_path: Path) -> None:
    assert read(spec_yaml(SHIPPED[name]), tmp_path) == {name: SHIPPED[name]}


@pytest.mark.parametrize("text", TRICKY)
def test_text_that_looks_like_something_else_stays_text(text: str, tmp_path: Path) -> None:
    model = {"name": "module", "path": "nets:Net", "arguments": {text: [text, {"a": text}]}}
    train = {"model": model, "iterations": 1, "shots": 1, "queries": 1}
    spec = PipelineSpec.model_validate({"name": "x", "description": text, "generate": {"distribution": "sinusoid"}, "train": train})
    assert read(spec_yaml(spec), tmp_path) == {"x": spec}


@given(anything)
@example({"<<": {"on": 1e-05, "1": True}})
@example([1e16, -0.0, float("inf"), float("-inf"), 10**30, "1e16"])
def test_plain_values_are_read_as_they_were_written(value: Any) -> None:
    root, mistakes = read_file(pipelines_yaml({"x": value}), "pipelines.yaml")
    assert mistakes == []
    assert root is not None
    assert repr(root.plain()) == repr({"pipelines": {"x": value}})  # 1 is not 1.0, nor True


@given(pipelines(BLOCKS))
def test_written_pipeline_reads_as_the_same(folder: Path, block: dict[str, Any]) -> None:
    try:
        spec = read(pipelines_yaml({"x": block}), folder)["x"]
    except SpecError:
        event("refused")
        return
    event("read")
    assert read(spec_yaml(spec), folder) == {"x": spec}
