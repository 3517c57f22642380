"""Tasks of pictures: functions of their index, of classes that no other split has, with what is asked of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from metaopt_core.distributions.batch import Episode, Tasks
from metaopt_core.distributions.contract import load, materialize
from metaopt_core.distributions.pictures.augmenting import NUMBERS, augmented
from metaopt_core.distributions.pictures.drawing import Pictures
from metaopt_core.distributions.splits import share_of
from metaopt_core.errors import UserError
from metaopt_core.spec.pipeline import PipelineSpec
from tests.metaopt_core.distributions.pictures.conftest import CLASSES, GROUPS, color, picture, pictures, written
from tests.metaopt_core.distributions.pictures.test_sources import spec_of
from tests.small import evaluate_all, setting_of, train_all


def made(folder: Path, path: Path, seed: int = 0, training: int = 0, **settings: Any) -> Pictures:
    folder.mkdir(exist_ok=True)
    materialize(spec_of(path, **settings), seed, folder, folder)
    distribution = load(folder, training)[0]
    assert isinstance(distribution, Pictures)
    return distribution


@pytest.fixture(scope="module")
def plain(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return made(tmp_path_factory.mktemp("plain"), tree)


def test_labels_are_those_of_classes_and_support_and_queries_are_other_pictures(plain: Pictures) -> None:
    tasks = plain.train(Episode(3, 2, 4), 0, 20)
    assert (tasks.support_x.shape, tasks.query_x.shape) == ((20, 6, 3, 8, 8), (20, 12, 3, 8, 8))
    assert tasks.support_y[0].tolist() == [0, 0, 1, 1, 2, 2]
    colors = {
        f"group{group}/class{label}": torch.tensor(color(group, label)) / 255 for group in range(GROUPS) for label in range(CLASSES)
    }
    assert tasks.classes is not None
    for task in range(20):
        expected = torch.stack([colors[plain.splits["train"].names[int(c)]] for c in tasks.classes[task]])
        assert (torch.cdist(tasks.query_x[task].mean((2, 3)), expected).argmin(1) == tasks.query_y[task]).all()
        everything = torch.cat([tasks.support_x[task], tasks.query_x[task]]).flatten(1)
        assert len(everything.unique(dim=0)) == 18


def test_a_task_is_a_function_of_its_index_and_of_the_seed(plain: Pictures, tree: Path, tmp_path: Path) -> None:
    episode = Episode(2, 1, 2)
    assert torch.equal(plain.train(episode, 7, 1).query_x, plain.train(episode, 5, 4).query_x[2:3])
    other = made(tmp_path / "other", tree, training=1)
    assert not torch.equal(other.train(episode, 7, 1).query_x, plain.train(episode, 7, 1).query_x)
    assert torch.equal(other.held_out("test", episode, 0, 4).query_x, plain.held_out("test", episode, 0, 4).query_x)


def test_queries_of_held_out_tasks_stay_whatever_the_shots_and_the_draw_of_these(plain: Pictures) -> None:
    one, four = (plain.held_out("test", Episode(2, shots, 2), 0, 4) for shots in (1, 4))
    again = plain.held_out("test", Episode(2, 4, 2, repeat=1), 0, 4)
    assert torch.equal(one.query_x, four.query_x)
    assert torch.equal(again.query_x, four.query_x)
    assert torch.equal(one.support_x, four.support_x[:, [0, 4]])
    sets = [{tuple(row.tolist()) for row in tasks.support_x[0].flatten(1)} for tasks in (four, again)]
    assert sets[0] == sets[1]  # all that are left, in another order
    assert not torch.equal(four.support_x, again.support_x)


SEEDS = {"class": 2, "group": 2}  # with which no split is too small


def test_splits_share_no_class_or_no_group_and_stay_when_classes_are_added(tree: Path, tmp_path: Path) -> None:
    by_class, by_group = (made(tmp_path / by, tree, split_by=by, seed=SEEDS[by]) for by in ("class", "group"))
    for distribution, part in ((by_class, 2), (by_group, 1)):
        names = [{"/".join(name.split("/")[:part]) for name in of.names} for of in distribution.splits.values()]
        assert sum(map(len, names)) == len(set.union(*names)) == (GROUPS * CLASSES if part == 2 else GROUPS)
    more = written(
        tmp_path / "more", pictures() | {f"group9/new{i}/{n}.png": picture((9, 9, 9), n) for i in range(3) for n in range(6)}
    )
    after = made(tmp_path / "after", more, seed=SEEDS["class"])
    for name, of in by_class.splits.items():
        assert set(of.names) == {one for one in after.splits[name].names if not one.startswith("group9")}
    assert np.mean([share_of(f"class{number}", 3) < 0.3 for number in range(2000)]) == pytest.approx(0.3, abs=0.04)


def test_rotations_are_classes_of_their_own(plain: Pictures, tree: Path, tmp_path: Path) -> None:
    turned = made(tmp_path, tree, rotations=4)
    assert turned.train_classes == 4 * plain.train_classes
    tasks = turned.train(Episode(4, 1, 1), 0, 30)
    assert tasks.classes is not None
    pixels = torch.from_numpy(np.array(turned.pixels)) / 255
    of = turned.splits["train"]
    for task, way in ((0, 0), (3, 2), (9, 3), (20, 1)):
        own = of.rows[of.first[int(tasks.classes[task, way]) // 4] :][:6]
        upright = torch.rot90(tasks.query_x[task, way], -int(tasks.classes[task, way]) % 4, (-2, -1))
        assert any(torch.equal(upright, pixels[row]) for row in own)


def test_pictures_of_training_tasks_alone_are_varied(plain: Pictures, tree: Path, tmp_path: Path) -> None:
    varied = made(tmp_path, tree, augment=["flip", "crop", "color"])
    episode = Episode(2, 2, 2)
    tasks = varied.train(episode, 0, 6)
    assert torch.equal(tasks.query_x[4:5], varied.train(episode, 4, 1).query_x)
    assert not torch.equal(tasks.query_x, plain.train(episode, 0, 6).query_x)
    assert torch.equal(tasks.query_y, plain.train(episode, 0, 6).query_y)
    assert torch.equal(varied.train_sample(episode, episode, 0, 6).query_x, plain.train(episode, 0, 6).query_x)
    assert torch.equal(varied.held_out("validation", episode, 0, 3).query_x, plain.held_out("validation", episode, 0, 3).query_x)


def test_flip_mirrors_and_crop_moves_by_whole_pixels() -> None:
    pictures = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    still = np.full((3, NUMBERS), 0.5)
    assert torch.equal(augmented(pictures, still, ["flip", "crop"]), pictures)
    mirrored = np.where(np.arange(NUMBERS) == 0, 0.1, still)
    assert torch.equal(augmented(pictures, mirrored, ["flip"]), pictures.flip(-1))
    moved = augmented(pictures, np.where(np.arange(NUMBERS) == 1, 0.99, still), ["crop"])  # down by two
    assert torch.equal(moved[:, :, :-2], pictures[:, :, 2:])
    assert torch.equal(moved[:, :, -1], pictures[:, :, -3])  # mirrored at the edge
    assert torch.allclose(augmented(pictures, still, ["color"]), pictures)
    assert augmented(pictures, np.where(np.arange(NUMBERS) == 3, 0.9, still), ["color"]).mean() > pictures.mean()


@pytest.mark.parametrize(
    ("files", "settings", "episode", "message"),
    [
        (
            {},
            {},
            Episode(2, 5, 5),
            r"5 shots and 5 queries of each class, but \d of the \d train classes have fewer than 10 pictures: "
            r"group\d/class\d \(6\).*: expected at most 6 together, or generate.fewest_pictures: 10",
        ),
        ({}, {}, Episode(9, 1, 1), r"train.ways: 9 ways, but the train split has \d classes: expected at most \d"),
        ({}, {"fewest_pictures": 7}, None, r"too few classes: the train split .* has 0 \(\d more have fewer than 7 pictures\)"),
        (
            {},
            {"held_out_ways": 12},
            None,
            r"the validation split of .* has \d; in all .*: expected at least the 12 that generate.held_out_ways",
        ),
        (
            {},
            {"split": {"train": 1.0, "validation": 0.0, "test": 0.0}},
            None,
            "has 0; in all there are 12 for train, 0 for validation",
        ),
        (
            {},
            {"split_by": "group", "layout": "*/{class}/*"},
            None,
            r"classes without a group \(class0, .*\): expected root/group/class",
        ),
    ],
)
def test_too_few_of_something_is_one_error_that_says_how_many_there_are(
    tree: Path, tmp_path: Path, files: dict[str, bytes], settings: dict[str, Any], episode: Episode | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        made(tmp_path, tree, **settings).train(episode or Episode(2, 1, 1), 0, 1)


def test_too_few_pictures_for_an_evaluation_are_said_when_tasks_are_counted(plain: Pictures) -> None:
    with pytest.raises(UserError, match=r"\d of the \d test classes have fewer than 7 pictures"):
        Tasks.held_out(plain, "test", Episode(2, 5, 2))


def test_small_classes_may_be_left_out(tree: Path, tmp_path: Path) -> None:
    root = written(
        tmp_path / "root", pictures() | {f"group9/few{n}/{i}.png": picture((0, 0, 0), i) for n in range(4) for i in range(2)}
    )
    distribution = made(tmp_path / "made", root, fewest_pictures=6)
    assert not any("few" in name for of in distribution.splits.values() for name in of.names)
    why = pd.read_csv(tmp_path / "made/left_out.csv")
    assert set(why["why"]) == {"a class of 2 pictures"}
    assert distribution.contents()["left_out"] == len(why) == 4


def test_pictures_of_test_classes_that_training_has_are_a_warning(tree: Path, tmp_path: Path) -> None:
    names = {name: split for split, of in made(tmp_path / "a", tree).splits.items() for name in of.names}
    [train, test] = [next(name for name, of in names.items() if of == split) for split in ("train", "test")]
    assert made(tmp_path / "b", tree).findings().warnings == []
    copied = {f"{test}/again.png": (tree / train / "0.png").read_bytes()}
    found = made(tmp_path / "c", written(tmp_path / "copied", pictures() | copied)).findings()
    assert found.warnings == ["1 pictures of test classes are also in training classes: they are no test of new ones"]
    assert found.facts["train"].endswith(" in all")


def test_color_is_told_apart_after_a_short_training(tree: Path, tmp_path: Path) -> None:
    spec = PipelineSpec.model_validate(
        {
            "name": "colors",
            "generate": spec_of(tree, size=16, augment=["flip"]).model_dump(),
            "train": {
                "model": {"name": "conv4", "filters": 8},
                "iterations": 30,
                "meta_batch_size": 4,
                "ways": 2,
                "shots": 1,
                "queries": 2,
                "outer": {"lr": 0.01},
                "baselines": ["protonet"],
                "validation": {"every": 15, "steps": 1},
            },
            "evaluate": {"steps": 1},
        }
    )
    setting = setting_of(spec, tmp_path)
    trained = {key: one.params for key, one in train_all(setting, tmp_path).items()}
    table = evaluate_all(setting, trained).tasks
    assert table[table["method"] == "protonet"]["accuracy_1"].mean() > 0.9
    assert len(setting.distribution.overview().axes) == 3


def test_a_batch_is_no_view_of_pictures_that_it_does_not_have(plain: Pictures) -> None:
    tasks = plain.train(Episode(2, 1, 1), 0, 3)
    assert tasks.support_x.is_contiguous()
    assert tasks.support_x.untyped_storage().nbytes() == tasks.support_x.nbytes
