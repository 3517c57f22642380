"""What is guessed of a folder of pictures is what is in it, and the pipeline that is written can be made."""

from pathlib import Path

import pytest

from metaopt_core.distributions.contract import Distribution, materialize
from metaopt_core.distributions.pictures.guessing import guess, pipelines_text
from metaopt_core.errors import UserError
from metaopt_core.spec.loader import load
from tests.metaopt_core.distributions.pictures.conftest import picture, written

GRAY = b"P5 70 90 255\n" + bytes(range(70)) * 90


def test_folders_of_splits_gray_pictures_and_small_classes_are_seen(tmp_path: Path) -> None:
    labels = {"train": ("a", "b"), "val": ("c", "d"), "test": ("e", "f")}
    files = {f"{split}/{label}/{n}.pgm": GRAY for split, two in labels.items() for label in two for n in range(4)}
    root = written(tmp_path / "My Scans", files)
    found = guess(root)
    assert (found.name, found.given, found.ways, found.pictures, found.size, found.gray) == ("my-scans", True, 2, 4, 64, True)
    (tmp_path / "pipelines.yaml").write_text(pipelines_text(found, root, tmp_path / "pipelines.yaml"))
    generate = load(tmp_path / "pipelines.yaml")["my-scans"].generate
    assert isinstance(generate, Distribution)
    assert materialize(generate, 0, tmp_path, tmp_path).input_shape == (1, 64, 64)


def test_too_few_classes_and_pictures_that_can_not_be_read_are_said(tmp_path: Path) -> None:
    few = written(tmp_path / "few", {f"{label}/{n}.png": picture((0, 0, 0), 0) for label in "ab" for n in range(3)})
    with pytest.raises(UserError, match="few: 2 classes: expected at least 6, a folder each"):
        guess(few)
    with pytest.raises(UserError, match="none of 2 pictures can be read"):
        guess(written(tmp_path / "bad", {f"{label}/0.png": b"" for label in "ab"}))
