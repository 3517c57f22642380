"""`metaopt init` and `metaopt data check` from outside."""

import json
from pathlib import Path

import pytest

from tests.flows.conftest import Project
from tests.metaopt_core.distributions.pictures.conftest import pictures, written
from tests.metaopt_core.distributions.table.tables import frame


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("own")
    frame(40, 30).to_csv(folder / "measured.csv", index=False)
    return Project(folder)


def test_from_a_file_to_a_checked_pipeline(own: Project) -> None:
    made = own.metaopt("init", "measured.csv")
    assert made.returncode == 0, made.stderr
    assert "task: task, a guess" in made.stderr
    assert "next: metaopt data check measured, then metaopt run measured" in made.stderr
    found = own.metaopt("data", "check", "measured", "--json")
    assert found.returncode == 0, found.stderr
    document = json.loads(found.stdout)
    assert sum(split["tasks"] for split in document["splits"].values()) == 40
    assert Path(document["figure"]).exists()
    assert not (own.home / "outputs").exists()  # no stage has run
    again = own.metaopt("init", "measured.csv")
    assert (again.returncode, "pipelines.yaml is there already" in again.stderr) == (2, True)


def test_from_pictures_to_a_checked_pipeline(own: Project) -> None:
    root = written(own.folder / "photos", {name: data for name, data in pictures().items() if not name.endswith("/5.bmp")})
    written(root, {"group3/class2/again.png": (root / "group0/class0/0.png").read_bytes()})
    made = own.metaopt("init", "--pictures", "photos", "-f", "photos.yaml")
    assert made.returncode == 0, made.stderr
    assert "61 pictures of 12 classes in 4 groups, 5 to 6 each" in made.stderr
    found = own.metaopt("data", "check", "photos", "-f", "photos.yaml", "--json", "--set", "generate.seed=2")
    assert found.returncode == 0, found.stderr
    assert set(json.loads(found.stdout)["facts"]) == {"train", "validation", "test"}
    wrong = own.metaopt("init", "--pictures", "photos", "measured.csv")
    assert (wrong.returncode, "expected a table, " in wrong.stderr) == (2, True)


def test_a_damaged_file_leaves_nothing_behind(own: Project) -> None:
    (own.folder / "broken.csv").write_text((own.folder / "measured.csv").read_text() + "t01,1\n")
    (own.folder / "own.yaml").write_text(
        "pipelines:\n  broken:\n    generate: {distribution: table, path: broken.csv, task: task, target: y}\n"
        "    train: {model: {name: mlp}, iterations: 3, shots: 5, queries: 5}\n"
    )
    found = own.metaopt("data", "check", "broken", "-f", "own.yaml")
    assert found.returncode == 2
    assert "broken.csv: line 1202: 2 values, but the header has 5 columns" in found.stderr
    assert "Traceback" not in found.stderr
    assert not list(own.home.glob("tmp*"))
