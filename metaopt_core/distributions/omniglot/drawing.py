"""How classification tasks are drawn from Omniglot's characters.

Source: Lake et al. 2015; protocol of Finn, Abbeel, Levine 2017, section 5.2. A split's class c is its character c // rotations (in
the order of splits.parquet), turned counterclockwise by (c % rotations) steps of 360° / rotations. A task is `ways` distinct
classes of a split, with distinct drawings of each as support and queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.figure import Figure
from safetensors.numpy import load_file, save_file
from torch import Tensor

from metaopt_core.distributions.batch import Episode, HeldOutSplit, Prediction, TaskBatch
from metaopt_core.distributions.contract import Generated
from metaopt_core.distributions.omniglot import figures
from metaopt_core.distributions.omniglot.archives import Pictures
from metaopt_core.distributions.omniglot.settings import DRAWINGS_PER_CHARACTER, OmniglotSettings
from metaopt_core.distributions.pictures import figures as of_pictures
from metaopt_core.distributions.pictures.tasks import as_tasks
from metaopt_core.distributions.random import Stream, uniform, without_replacement
from metaopt_core.errors import UserError

Split = Literal["train", "validation", "test", "new_alphabets"]
Integers = npt.NDArray[np.int64]
_STREAMS: Mapping[Split, Stream] = {
    "validation": Stream.VALIDATION,
    "test": Stream.TEST,
    "new_alphabets": Stream.NEW_ALPHABETS,
}


def materialize(spec: OmniglotSettings, seed: int, pictures: Pictures, folder: Path) -> None:
    """Write the pictures, the splits and the held-out tasks into a folder.

    pictures.safetensors: pixels, uint8 [characters, 20, 28, 28], ink is 255.
    splits.parquet: a character a row, in the order of the pixels: character_index, alphabet, character, split (train, validation,
        test, new_alphabets or unused).
    held_out.safetensors: for every split but train `<split>.classes`, int64 [tasks, held_out_ways], and `<split>.drawings`, int64
        [tasks, held_out_ways, 20], the order in which a task uses up a class's drawings.

    Raises UserError if whole alphabets leave too few characters to train on.
    """
    splits = splits_of(spec, seed, pictures)
    characters = splits["split"].value_counts()
    held_out: dict[str, Integers] = {}
    for split, stream in _STREAMS.items():
        if split not in characters:
            continue
        tasks = spec.held_out.validation_tasks if split == "validation" else spec.held_out.test_tasks
        population = int(characters[split]) * spec.rotations
        classes, drawings = _draw(seed, stream, 0, tasks, spec.held_out_ways, population, DRAWINGS_PER_CHARACTER)
        held_out |= {f"{split}.classes": classes, f"{split}.drawings": drawings}
    save_file({"pixels": pictures.pixels}, folder / "pictures.safetensors")
    save_file(held_out, folder / "held_out.safetensors")
    splits.to_parquet(folder / "splits.parquet", index=False)


def splits_of(spec: OmniglotSettings, seed: int, pictures: Pictures) -> pd.DataFrame:
    """A character a row: character_index, alphabet, character, split. Both alphabets and characters are shuffled by the seed."""
    numbers = uniform(seed, Stream.SPLIT, 0, 1, 2 * len(pictures.characters))[0]
    wanted = spec.characters
    split = np.full(len(pictures.characters), "unused", dtype=object)
    whole = {"new_alphabets": wanted.new_alphabets}
    if spec.split_by == "alphabet":
        whole = {"test": wanted.test, "validation": wanted.validation, "train": wanted.train}
    alphabets = np.asarray(pictures.alphabets)
    names = np.unique(alphabets)
    left = [names[index] for index in np.argsort(numbers[len(split) :][: len(names)], kind="stable")]
    for name, count in whole.items():
        while left and (split == name).sum() < count:
            split[alphabets == left.pop()] = name
    if spec.split_by == "character":
        shuffled = np.argsort(numbers[: len(split)], kind="stable")
        free = shuffled[split[shuffled] == "unused"]
        sizes = {name: getattr(wanted, name) for name in ("train", "validation", "test")}
        if (short := sum(sizes.values()) - len(free)) > 0:
            raise UserError(
                f"generate.characters: the whole alphabets of new_alphabets leave {len(free)} characters, {short} too few: "
                "expected train, validation and test to be at most that many together"
            )
        split[free[: sum(sizes.values())]] = np.repeat(list(sizes), list(sizes.values()))
    elif (classes := int((split == "train").sum()) * spec.rotations) < spec.held_out_ways:
        raise UserError(
            f"generate.characters: the whole alphabets of test and validation leave {classes} classes to train on: expected "
            f"smaller numbers there, so that at least {spec.held_out_ways} are left, as many as held_out_ways"
        )
    columns = {"alphabet": pictures.alphabets, "character": pictures.characters, "split": split}
    return pd.DataFrame({"character_index": np.arange(len(split)), **columns})


def _draw(seed: int, stream: Stream, start: int, count: int, ways: int, classes: int, drawings: int) -> tuple[Integers, Integers]:
    """Distinct classes [count, ways] and distinct drawings of each [count, ways, drawings] of the tasks from index `start` on."""
    numbers = uniform(seed, stream, start, count, ways * (1 + drawings))
    return (
        without_replacement(numbers[:, :ways], classes),
        without_replacement(numbers[:, ways:].reshape(count, ways, drawings), DRAWINGS_PER_CHARACTER),
    )


@dataclass(frozen=True)
class Omniglot(Generated):
    """The distribution in memory.

    pixels: split → uint8 [classes, 20, 28, 28], with the rotations as classes.
    held_out_tasks: as in held_out.safetensors. characters: as in splits.parquet.
    """

    spec: OmniglotSettings
    seed: int
    pixels: Mapping[Split, Tensor]
    held_out_tasks: Mapping[str, Tensor]
    characters: pd.DataFrame

    @classmethod
    def load(cls, spec: OmniglotSettings, seed: int, folder: Path) -> "Omniglot":
        pixels = torch.from_numpy(load_file(folder / "pictures.safetensors")["pixels"])
        characters = pd.read_parquet(folder / "splits.parquet")
        split_of = characters["split"].to_numpy()
        splits: tuple[Split, ...] = ("train", "validation", "test", "new_alphabets")
        by_split = {split: _rotated(pixels[torch.from_numpy(split_of == split)], spec.rotations) for split in splits}
        held_out = {name: torch.from_numpy(array) for name, array in load_file(folder / "held_out.safetensors").items()}
        return cls(spec, seed, by_split, held_out, characters)

    @property
    def train_classes(self) -> int:
        return len(self.pixels["train"])

    def train(self, episode: Episode, start: int, count: int) -> TaskBatch:
        """The meta-train tasks with indices start … start+count−1.

        A task is a function of (seed, index) and of the episode: that says how many random numbers an index owns, so another number
        of ways or of shots + queries makes other tasks.
        """
        ways = _ways(episode)
        classes, drawings = _draw(self.seed, Stream.TRAIN, start, count, ways, self.train_classes, episode.shots + episode.queries)
        return self._batch("train", torch.from_numpy(classes), torch.from_numpy(drawings), episode)

    def train_sample(self, trained: Episode, episode: Episode, start: int, count: int) -> TaskBatch:  # noqa: ARG002
        """Meta-train tasks of the given shape; those that were trained on are of the same classes and drawings."""
        return self.train(episode, start, count)

    def held_out(self, split: HeldOutSplit, episode: Episode, start: int, count: int) -> TaskBatch:
        """Tasks of a split: the first `ways` stored classes, with the first `shots` of their drawings as support.

        The last `queries` drawings are the queries, so that these stay the same whatever the number of shots.
        """
        ways, needed = _ways(episode), episode.shots + episode.queries
        stored = (self.held_out_tasks[f"{split}.{name}"] for name in ("classes", "drawings"))
        classes, drawings = (one[start : start + count] for one in stored)
        if ways > classes.shape[1] or needed > DRAWINGS_PER_CHARACTER:
            raise ValueError(
                f"{ways} ways with {needed} drawings of each: expected at most {classes.shape[1]} ways, as stored, and "
                f"{DRAWINGS_PER_CHARACTER} drawings"
            )
        drawings = torch.cat(
            (drawings[:, :ways, : episode.shots], drawings[:, :ways, DRAWINGS_PER_CHARACTER - episode.queries :]), -1
        )
        return self._batch(split, classes[:, :ways], drawings, episode)

    def held_out_count(self, split: HeldOutSplit) -> int:
        return len(self.held_out_tasks[f"{split}.classes"])

    def on(self, device: torch.device) -> "Omniglot":
        return replace(self, pixels={split: pixels.to(device) for split, pixels in self.pixels.items()})

    def shifted(self, changes: Mapping[str, Any]) -> "Omniglot":
        """The same, with characters of new alphabets instead of the test characters where the shift asks for it."""
        if changes.get("alphabets") is None:
            return self
        tasks = {f"test.{name}": self.held_out_tasks[f"new_alphabets.{name}"] for name in ("classes", "drawings")}
        return replace(
            self,
            pixels={**self.pixels, "test": self.pixels["new_alphabets"]},
            held_out_tasks={**self.held_out_tasks, **tasks},
        )

    def contents(self) -> Mapping[str, Any]:
        sizes = self.characters.groupby("split").agg(characters=("character", "size"), alphabets=("alphabet", "nunique"))
        return {"splits": sizes.to_dict("index")}

    def overview(self) -> Figure:
        return figures.overview(self.spec.rotations, self.pixels, self.characters)

    def examples(self, tasks: TaskBatch, predictions: Sequence[Prediction]) -> Figure:
        return of_pictures.examples(tasks, predictions[0], inverted=True)

    def _batch(self, split: Split, classes: Tensor, drawings: Tensor, episode: Episode) -> TaskBatch:
        """Tasks from classes [T, ways] and drawings [T, ways, shots + queries]."""
        pixels = self.pixels[split].flatten(0, 1)
        classes, drawings = (indexes.to(pixels.device, non_blocking=True) for indexes in (classes, drawings))
        rows = (classes[..., None] * DRAWINGS_PER_CHARACTER + drawings).flatten()
        x = pixels.index_select(0, rows) / 255
        return as_tasks(x.view(*drawings.shape, 1, *x.shape[1:]), classes, episode.shots)


def _ways(episode: Episode) -> int:
    if episode.ways is None:
        raise ValueError("an Omniglot task needs a number of ways, and the episode has none")
    return episode.ways


def _rotated(pixels: Tensor, rotations: int) -> Tensor:
    """Classes from characters: [characters, 20, side, side] → [characters · rotations, 20, side, side]."""
    turned = [torch.rot90(pixels, quarter, (-2, -1)) for quarter in range(0, 4, 4 // rotations)]
    return torch.stack(turned, dim=1).flatten(0, 1)
