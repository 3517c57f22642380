"""Tasks of Omniglot: what is in them, and that each is a function of its index."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from metaopt_core.distributions.batch import Episode, TaskBatch
from metaopt_core.distributions.contract import record
from metaopt_core.distributions.omniglot import OmniglotSpec
from metaopt_core.distributions.omniglot.archives import Pictures
from metaopt_core.distributions.omniglot.drawing import Omniglot, materialize, splits_of
from metaopt_core.distributions.omniglot.settings import CharacterSplit
from metaopt_core.errors import UserError
from metaopt_core.spec.distribution import HeldOut
from tests.small import all_held_out

SPEC = OmniglotSpec(
    distribution="omniglot",
    folder="/of/this/machine",
    characters=CharacterSplit(train=1000, validation=100, test=400),
    held_out=HeldOut(validation_tasks=30, test_tasks=50),
)
TWENTY_WAYS = Episode(ways=20, shots=5, queries=15)


@pytest.fixture(scope="module")
def folder(pictures: Pictures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("omniglot")
    made(SPEC, 7, pictures, folder)
    return folder


def made(spec: OmniglotSpec, seed: int, pictures: Pictures, folder: Path) -> Omniglot:
    materialize(spec, seed, pictures, folder)
    record(spec, spec.shape, seed, folder)
    return Omniglot.load(spec, seed, folder)


@pytest.fixture(scope="module")
def omniglot(folder: Path) -> Omniglot:
    return Omniglot.load(SPEC, 7, folder)


@pytest.fixture(scope="module")
def splits(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "splits.parquet")


def same(a: TaskBatch, b: TaskBatch) -> bool:
    names = ("support_x", "support_y", "query_x", "query_y", "classes")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


def joined(batches: list[TaskBatch]) -> TaskBatch:
    names = ("support_x", "support_y", "query_x", "query_y", "classes")
    return TaskBatch(**{name: torch.cat([getattr(batch, name) for batch in batches]) for name in names})


# --- splits -------------------------------------------------------------------------------------------------------------


def test_every_character_is_in_one_split_and_the_splits_have_the_sizes_of_the_spec(
    splits: pd.DataFrame, pictures: Pictures
) -> None:
    assert splits["character_index"].tolist() == list(range(1623))
    assert splits["alphabet"].tolist() == pictures.alphabets
    assert splits["character"].tolist() == pictures.characters
    assert splits["split"].value_counts().to_dict() == {"train": 1000, "test": 400, "unused": 123, "validation": 100}


def test_the_split_is_drawn_across_alphabets_and_follows_the_seed(splits: pd.DataFrame, pictures: Pictures, tmp_path: Path) -> None:
    assert splits[splits["split"] == "test"]["alphabet"].nunique() > 40
    made(SPEC, 8, pictures, tmp_path)
    assert not splits["split"].equals(pd.read_parquet(tmp_path / "splits.parquet")["split"])


def test_the_same_seed_writes_the_same_bytes_and_another_folder_changes_none(
    folder: Path, pictures: Pictures, tmp_path: Path
) -> None:
    made(SPEC.model_copy(update={"folder": None}), 7, pictures, tmp_path)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["distribution.json", "held_out.safetensors", "pictures.safetensors", "shape.json", "splits.parquet"]
    assert all((tmp_path / name).read_bytes() == (folder / name).read_bytes() for name in written)
    assert json.loads((folder / "distribution.json").read_text())["seed"] == 7


def test_all_1623_characters_can_be_used(pictures: Pictures, tmp_path: Path) -> None:
    assert made(OmniglotSpec(distribution="omniglot"), 0, pictures, tmp_path).train_classes == 4400
    assert pd.read_parquet(tmp_path / "splits.parquet")["split"].value_counts().to_dict() == {
        "train": 1100,
        "test": 423,
        "validation": 100,
    }


# --- whole alphabets ----------------------------------------------------------------------------------------------------


def alphabets(splits: pd.DataFrame) -> dict[str, set[str]]:
    return {str(name): set(rows["alphabet"]) for name, rows in splits.groupby("split")}


@pytest.mark.parametrize("seed", range(5))
def test_split_by_alphabet_no_alphabet_is_in_two_splits_and_held_out_ones_have_their_numbers(pictures: Pictures, seed: int) -> None:
    splits = splits_of(OmniglotSpec(distribution="omniglot", split_by="alphabet"), seed, pictures)
    parts = alphabets(splits)
    assert sum(map(len, parts.values())) == 50
    sizes = splits["split"].value_counts()
    largest = splits["alphabet"].value_counts().max()
    for name, wanted in (("validation", 100), ("test", 423)):
        assert wanted <= sizes[name] < wanted + largest
    assert sizes["train"] == 1623 - sizes["test"] - sizes["validation"]


def test_split_by_alphabet_a_smaller_train_split_leaves_alphabets_unused_and_the_seed_chooses(pictures: Pictures) -> None:
    spec = OmniglotSpec(distribution="omniglot", split_by="alphabet", characters=CharacterSplit(train=300))
    first, second = (splits_of(spec, seed, pictures) for seed in (0, 1))
    assert 300 <= (first["split"] == "train").sum() < 360
    assert (first["split"] == "unused").sum() > 600
    assert alphabets(first)["test"] != alphabets(second)["test"]


def test_new_alphabets_are_in_no_other_split_and_the_others_keep_their_sizes(pictures: Pictures) -> None:
    wanted = CharacterSplit(train=800, validation=100, test=300, new_alphabets=200)
    splits = splits_of(SPEC.model_copy(update={"characters": wanted}), 7, pictures)
    parts = alphabets(splits)
    assert not parts["new_alphabets"] & set().union(*(names for name, names in parts.items() if name != "new_alphabets"))
    sizes = splits["split"].value_counts()
    assert {name: sizes[name] for name in ("train", "validation", "test")} == {"train": 800, "validation": 100, "test": 300}
    assert 200 <= sizes["new_alphabets"] < 260


@pytest.mark.parametrize(
    ("split_by", "characters", "message"),
    [
        ("character", CharacterSplit(train=1100, validation=100, test=323, new_alphabets=100), "leave 14.. characters, .* too few"),
        ("alphabet", CharacterSplit(train=1, validation=1, test=1621), "leave 0 classes to train on: .* at least 20 are left"),
    ],
)
def test_too_few_characters_beside_whole_alphabets_are_an_error(
    pictures: Pictures, split_by: str, characters: CharacterSplit, message: str
) -> None:
    spec = SPEC.model_copy(update={"split_by": split_by, "characters": characters})
    with pytest.raises(UserError, match=f"^generate.characters: the whole alphabets of .* {message}"):
        splits_of(spec, 7, pictures)


def test_tasks_of_new_alphabets_take_the_place_of_the_test_tasks(pictures: Pictures, tmp_path: Path) -> None:
    wanted = CharacterSplit(train=800, validation=100, test=300, new_alphabets=200)
    before = made(SPEC.model_copy(update={"characters": wanted, "rotations": 1}), 7, pictures, tmp_path)
    shifted = before.shifted({"alphabets": "new"})
    kept = pd.read_parquet(tmp_path / "splits.parquet").query("split == 'new_alphabets'")["character_index"].to_numpy()
    tasks = all_held_out(shifted, "test", Episode(5, 1, 2))
    assert len(tasks) == 50
    assert tasks.classes is not None
    for task in (0, 17):
        label, character = 3, kept[int(tasks.classes[task, 3])]
        drawings = torch.from_numpy(pictures.pixels[character]) / 255
        assert (drawings == tasks.support_x[task, label, 0]).all((1, 2)).any()
    assert same(all_held_out(before.shifted({}), "test", Episode(5, 1, 2)), all_held_out(before, "test", Episode(5, 1, 2)))
    assert same(all_held_out(shifted, "validation", Episode(5, 1, 2)), all_held_out(before, "validation", Episode(5, 1, 2)))


# --- rotations ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotations", [1, 2, 4])
def test_a_class_is_its_character_turned_counterclockwise(
    rotations: int, splits: pd.DataFrame, pictures: Pictures, tmp_path: Path
) -> None:
    omniglot = made(SPEC.model_copy(update={"rotations": rotations}), 7, pictures, tmp_path)
    assert omniglot.train_classes == 1000 * rotations
    characters = splits["character_index"][splits["split"] == "train"].to_numpy()
    for position in (0, 1, 500, 999):
        for turn in range(rotations):
            expected = np.rot90(pictures.pixels[characters[position]], turn * 4 // rotations, axes=(1, 2))
            assert np.array_equal(omniglot.pixels["train"][position * rotations + turn].numpy(), expected)


# --- tasks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("episode", [Episode(5, 1, 1), Episode(5, 5, 15), Episode(20, 1, 3)], ids=str)
def test_a_task_has_the_shapes_types_and_range_of_its_episode(omniglot: Omniglot, episode: Episode) -> None:
    assert episode.ways
    batch = omniglot.train(episode, 0, 6)
    assert batch.support_x.shape == (6, episode.ways * episode.shots, 1, 28, 28)
    assert batch.query_x.shape == (6, episode.ways * episode.queries, 1, 28, 28)
    assert batch.support_x.dtype == batch.query_x.dtype == torch.float32
    assert batch.support_y.dtype == batch.query_y.dtype == torch.int64
    assert batch.support_x.min() == 0
    assert batch.support_x.max() == 1


def test_labels_are_balanced_and_in_order(omniglot: Omniglot) -> None:
    batch = omniglot.train(Episode(ways=3, shots=2, queries=1), 0, 4)
    assert batch.support_y.tolist() == [[0, 0, 1, 1, 2, 2]] * 4
    assert batch.query_y.tolist() == [[0, 1, 2]] * 4


@pytest.mark.parametrize("chunks", [[64], [1] * 64, [5, 30, 29]], ids=["whole", "one by one", "uneven"])
def test_a_task_depends_on_its_index_and_not_on_the_chunk_it_was_drawn_in(omniglot: Omniglot, chunks: list[int]) -> None:
    episode = Episode(ways=5, shots=1, queries=2)
    starts = np.cumsum([0, *chunks[:-1]])
    drawn = joined([omniglot.train(episode, 1000 + int(start), count) for start, count in zip(starts, chunks, strict=True)])
    assert same(drawn, omniglot.train(episode, 900, 200)[100:164])


def test_two_tasks_differ_and_so_do_two_seeds(omniglot: Omniglot) -> None:
    episode = Episode(ways=5, shots=1, queries=1)
    batch = omniglot.train(episode, 0, 1000)
    assert batch.classes is not None
    assert len(batch.classes.unique(dim=0)) == 1000
    other = replace(omniglot, seed=omniglot.seed + 1)
    assert not same(other.train(episode, 0, 1000), batch)


def test_the_classes_of_a_task_are_distinct_and_all_are_drawn_equally_often(omniglot: Omniglot) -> None:
    batch = omniglot.train(Episode(ways=20, shots=1, queries=1), 0, 4000)
    assert batch.classes is not None
    ordered, _ = batch.classes.sort(dim=1)
    assert (ordered[:, 1:] > ordered[:, :-1]).all()
    counts = np.bincount(batch.classes.flatten().numpy(), minlength=4000)  # 80,000 draws of 4,000 classes: 20 each on average
    chi_square = ((counts - 20) ** 2 / 20).sum()
    assert abs(chi_square - 3999) < 5 * np.sqrt(2 * 3999)


def drawings_of(omniglot: Omniglot, batch: TaskBatch, split: str) -> list[list[int]]:
    """The drawing that each example of each task is, support before queries, found by its pixels; class by class."""
    assert batch.classes is not None
    found = []
    for task in range(len(batch)):
        for way, of_class in enumerate(batch.classes[task].tolist()):
            known = omniglot.pixels[split][of_class] / 255  # type: ignore[index]
            examples = torch.cat(
                (batch.support_x[task][batch.support_y[task] == way], batch.query_x[task][batch.query_y[task] == way])
            )
            equal = (known[None] == examples).flatten(2).all(-1)
            assert (equal.sum(1) == 1).all()
            found.append(equal.int().argmax(1).tolist())
    return found


def test_a_label_stands_for_its_class_and_support_and_queries_share_no_drawing(omniglot: Omniglot) -> None:
    drawings = drawings_of(omniglot, omniglot.train(TWENTY_WAYS, 3, 5), "train")
    assert len(drawings) == 100
    assert all(sorted(each) == list(range(20)) for each in drawings)  # 5 + 15: all of them, each once


def test_more_drawings_or_classes_than_there_are_is_an_error(omniglot: Omniglot) -> None:
    with pytest.raises(ValueError, match="21 distinct numbers out of 20"):
        omniglot.train(Episode(5, 1, 20), 0, 1)
    with pytest.raises(ValueError, match="expected at most 20 ways"):
        all_held_out(omniglot, "test", Episode(21, 1, 1))
    with pytest.raises(ValueError, match="20 drawings"):
        all_held_out(omniglot, "test", Episode(5, 6, 15))
    with pytest.raises(ValueError, match="number of ways"):
        omniglot.train(Episode(None, 1, 1), 0, 1)


# --- held-out tasks -----------------------------------------------------------------------------------------------------


def test_the_held_out_splits_have_their_tasks_of_their_own_classes(omniglot: Omniglot) -> None:
    validation, test = (all_held_out(omniglot, split, Episode(20, 1, 1)) for split in ("validation", "test"))
    assert validation.classes is not None
    assert test.classes is not None
    assert (len(validation), len(test)) == (30, 50)
    assert validation.classes.max() < 400
    assert 400 < test.classes.max() < 1600
    drawings = drawings_of(omniglot, all_held_out(omniglot, "test", TWENTY_WAYS)[:5], "test")
    assert all(sorted(each) == list(range(20)) for each in drawings)


def test_tasks_of_5_ways_are_the_first_of_those_of_20(omniglot: Omniglot) -> None:
    five, twenty = all_held_out(omniglot, "test", Episode(5, 5, 15)), all_held_out(omniglot, "test", TWENTY_WAYS)
    assert five.classes is not None
    assert twenty.classes is not None
    assert torch.equal(five.classes, twenty.classes[:, :5])
    assert torch.equal(five.support_x, twenty.support_x[:, : 5 * 5])
    assert torch.equal(five.query_x, twenty.query_x[:, : 5 * 15])


def test_queries_stay_the_same_whatever_the_shots_and_the_shots_are_nested(omniglot: Omniglot) -> None:
    one, five = all_held_out(omniglot, "test", Episode(5, 1, 3)), all_held_out(omniglot, "test", Episode(5, 5, 3))
    assert torch.equal(one.query_x, five.query_x)
    assert torch.equal(one.support_x, five.support_x[:, ::5])
