"""A stage's identity changes with what its result depends on, and with nothing else."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from metaopt_core.pipeline import stages
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.stages import identities
from metaopt_core.pipeline.store import Store
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.sweep import RangeSpec, SweepSpec
from tests.made_outputs import sinusoid_spec

NAMES = ("generate", "train", "evaluate", "log")


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources that a test may change."""
    for package in ("metaopt_core", "tasks"):
        shutil.copytree(stages.ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    stages._read.cache_clear()
    return tmp_path


def changed(before: PipelineSpec, after: PipelineSpec) -> set[str]:
    old, new = identities(before), identities(after)
    return {name for name in NAMES if old[name].fingerprint != new[name].fingerprint}


@pytest.mark.parametrize(
    ("file", "concerned"),
    [
        ("metaopt_core/distributions/random.py", set(NAMES)),
        ("metaopt_core/meta/gradients.py", {"train", "evaluate", "log"}),
        ("metaopt_core/networks/convolution.py", {"train", "evaluate", "log"}),
        ("metaopt_core/evaluation/protocol.py", {"evaluate", "log"}),
        ("metaopt_core/reporting/figures.py", {"evaluate", "log"}),
        ("tasks/evaluate.py", {"evaluate", "log"}),
        ("metaopt_core/tracking/runs.py", {"log"}),
        ("metaopt_core/tracking/publishing.py", {"log"}),
        ("metaopt_core/spec/loader.py", set()),
    ],
)
def test_a_changed_source_concerns_what_computes_with_it_and_what_follows(copy: Path, file: str, concerned: set[str]) -> None:
    spec = sinusoid_spec("sources")
    before = {name: identity.fingerprint for name, identity in identities(spec).items()}
    (copy / file).write_text((copy / file).read_text() + "\n# changed\n")
    stages._read.cache_clear()
    after = identities(spec)
    assert {name for name in NAMES if before[name] != after[name].fingerprint} == concerned


def test_the_reason_names_the_changed_source(copy: Path, tmp_path: Path) -> None:
    spec, store = sinusoid_spec("sources"), Store(Home(tmp_path / "home"))
    store.remember(spec.name, identities(spec)["train"])
    (copy / "metaopt_core/networks/convolution.py").write_text("# nothing\n")
    stages._read.cache_clear()
    assert store.why(spec.name, identities(spec)["train"]) == ["changed source metaopt_core/networks/convolution.py"]


@pytest.mark.parametrize(
    ("block", "update", "concerned"),
    [
        (None, {"seed": 1}, set(NAMES)),
        (None, {"device": "cpu"}, set()),
        (None, {"description": "Another."}, set()),
        (None, {"seeds": 5}, set()),
        (None, {"sweep": SweepSpec(trials=3, parameters={"train.inner.lr": RangeSpec(low=0.1, high=0.2)})}, set()),
        (None, {"name": "another"}, {"log"}),
        ("train", {"checkpoint_every": 1.0}, set()),
        ("train", {"iterations": 31}, {"train", "evaluate", "log"}),
        ("train", {"shots": 6}, {"train", "evaluate", "log"}),
        ("evaluate", {"steps": 3}, {"evaluate", "log"}),
        ("log", {"register_as": "model"}, {"log"}),
    ],
)
def test_a_changed_value_concerns_the_stages_that_use_it(block: str | None, update: dict[str, Any], concerned: set[str]) -> None:
    spec = sinusoid_spec("values")
    changes = {block: getattr(spec, block).model_copy(update=update)} if block else update
    assert changed(spec, spec.model_copy(update=changes)) == concerned


def test_the_tracking_address_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = sinusoid_spec("address")
    embedded = identities(spec)["log"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    elsewhere = identities(spec)["log"]
    assert embedded.fingerprint != elsewhere.fingerprint
    assert elsewhere.slice["log.tracking_uri"] == "http://mlflow.example:5000"
