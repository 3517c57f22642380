"""A stage's identity changes with what its result depends on, and with nothing else."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from metaopt_core.distributions.pictures import PicturesSpec
from metaopt_core.errors import UserError
from metaopt_core.pipeline import code
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.identity import identities
from metaopt_core.pipeline.stages import STAGES
from metaopt_core.pipeline.store import Store
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.sweep import RangeSpec, SweepSpec
from tests.made_outputs import sinusoid_spec

NAMES = tuple(STAGES)


def changed(before: PipelineSpec, after: PipelineSpec) -> set[str]:
    old, new = identities(before), identities(after)
    return {name for name in NAMES if old[name].fingerprint != new[name].fingerprint}


def test_the_reason_names_the_file_whose_code_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in code.PACKAGES:
        shutil.copytree(code.ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    spec, store = sinusoid_spec("waves"), Store(Home(tmp_path / "home"))
    store.remember(spec.name, identities(spec)["train"])
    loop = tmp_path / "metaopt_core/training/loop.py"
    loop.write_text(loop.read_text().replace("_TASKS_DRAWN_TOGETHER = ", "_TASKS_DRAWN_TOGETHER = 1 + "))
    monkeypatch.setattr(code, "ROOT", tmp_path)
    assert store.why(spec.name, identities(spec)["train"]) == ["changed code metaopt_core/training/loop.py"]


def test_a_key_that_says_nothing_is_in_no_identity() -> None:
    found = identities(sinusoid_spec("waves"))
    assert not [key for identity in found.values() for key, value in identity.slice.items() if value is None]
    assert "train.inner.clip_norm" not in found["train"].slice


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
        ("log", {"register_as": "model"}, set()),
        ("log", {"experiment": "another"}, {"log"}),
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


TWO_METHODS = """
from metaopt_core.methods.contract import Method


class A(Method):
    name = "a"


class B(Method):
    name = "b"
"""


def test_which_methods_of_a_file_are_compared_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two_methods.py").write_text(TWO_METHODS)
    monkeypatch.syspath_prepend(str(tmp_path))
    train = sinusoid_spec("own").train.model_dump(mode="json")
    chosen = (["two_methods:A"], ["two_methods:A", "two_methods:B"], ["two_methods:B"])
    found = [identities(sinusoid_spec("own", train=train | {"baselines": names})) for names in chosen]
    assert len({one["evaluate"].fingerprint for one in found}) == 3
    assert len({one["train"].fingerprint for one in found}) == 1  # none of them has parameters


def test_which_metrics_of_a_file_judge_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = "from metaopt_core.spec.metric import metric\n\n"
    metrics += "".join(f"@metric(title='{name}', targets='real')\ndef {name}(outputs, targets): ...\n\n" for name in ("one", "two"))
    (tmp_path / "two_metrics.py").write_text(metrics)
    monkeypatch.syspath_prepend(str(tmp_path))
    one, two = (sinusoid_spec("own", evaluate={"metrics": [f"two_metrics:{name}"]}) for name in ("one", "two"))
    assert "two_metrics:two as two" in identities(two)["evaluate"].slice["evaluate.metrics"]
    assert changed(one, two) == {"evaluate", "log"}


def test_an_installed_package_counts_with_its_helpers_and_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages/installed_nets"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text("import PIL\nfrom .blocks import Block\nclass Net: ...\n")
    (package / "blocks.py").write_text("class Block: ...\n")
    monkeypatch.syspath_prepend(str(package.parent))
    train = sinusoid_spec("own").train.model_dump(mode="json") | {"model": {"name": "module", "path": "installed_nets.nets:Net"}}
    spec = sinusoid_spec("own", train=train)
    before = identities(spec)
    assert "pillow" in before["train"].libraries
    (package / "blocks.py").write_text("class Block: depth = 2\n")
    after = identities(spec)
    assert {name for name in NAMES if before[name].fingerprint != after[name].fingerprint} == {"train", "evaluate", "log"}


def test_what_a_users_code_uses_of_ours_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no more of it: not the whole module, although the user's own files count whole."""
    (tmp_path / "using.py").write_text("from metaopt_core.methods.linear import with_offset\n" + TWO_METHODS)
    monkeypatch.syspath_prepend(str(tmp_path))
    used = "metaopt_core/methods/linear.py"
    assert used not in identities(sinusoid_spec("waves"))["evaluate"].code
    train = sinusoid_spec("own").train.model_dump(mode="json") | {"baselines": ["using:A"]}
    assert used in identities(sinusoid_spec("own", train=train))["evaluate"].code


def test_a_declared_library_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in_need.py").write_text(TWO_METHODS.replace('name = "a"', 'name = "a"\n    libraries = ("absent-library",)'))
    monkeypatch.syspath_prepend(str(tmp_path))
    train = sinusoid_spec("own").train.model_dump(mode="json") | {"baselines": ["in_need:A"]}
    with pytest.raises(UserError, match=r"^absent-library: not installed"):
        identities(sinusoid_spec("own", train=train))


def test_where_a_table_and_the_files_of_its_splits_are_does_not_count(tmp_path: Path) -> None:
    found = []
    for place in ("a", "b", "c"):
        for name in ("one", "two"):
            (tmp_path / place / name).mkdir(parents=True)
            (tmp_path / place / name / "rows.csv").write_text(f"task,x,y\n{name},1,2\n")
        for split in ("train", "validation", "test"):
            (tmp_path / place / f"{split}.txt").write_text("two" if place == "c" and split == "test" else "one")
        lists = {name: f"{name}.txt" for name in ("train", "validation", "test")}
        table = {"distribution": "table", "path": "*/rows.csv", "task": "task", "target": "y", "split": lists}
        spec = sinusoid_spec("table", generate=table)
        found.append(identities(spec.model_copy(update={"generate": spec.generate.beside(tmp_path / place)}))["generate"])
    assert found[0] == found[1]
    assert {key for key in found[0].slice if found[0].slice[key] != found[2].slice[key]} == {"data.test tasks"}


def test_where_the_files_of_pictures_splits_are_does_not_count(tmp_path: Path) -> None:
    split = {name: f"{name}.txt" for name in ("train", "validation", "test")}
    pictures = PicturesSpec.model_validate({"distribution": "pictures", "path": "root", "split": split})
    assert pictures.beside(tmp_path / "a").identity() == pictures.beside(tmp_path / "b").identity()
