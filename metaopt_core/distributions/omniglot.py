"""Omniglot's characters as a distribution of classification tasks.

Source: Lake et al. 2015; protocol of Finn, Abbeel, Levine 2017, section 5.2. A split's class c is its character c // rotations (in
the order of splits.parquet), turned counterclockwise by (c % rotations) steps of 360° / rotations. A task is `ways` distinct
classes of a split, with distinct drawings of each as support and queries.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from metaopt_core.distributions.batch import Episode, HeldOutSplit, TaskBatch
from metaopt_core.distributions.omniglot_archives import Pictures
from metaopt_core.distributions.random import Stream, uniform, without_replacement
from metaopt_core.spec.models import DRAWINGS_PER_CHARACTER, OmniglotSpec

Split = Literal["train", "validation", "test"]
Integers = npt.NDArray[np.int64]
_STREAMS: Mapping[HeldOutSplit, Stream] = {"validation": Stream.VALIDATION, "test": Stream.TEST}


def materialize(spec: OmniglotSpec, seed: int, pictures: Pictures, folder: Path) -> None:
    """Write the pictures, the splits and the held-out tasks into a folder.

    pictures.safetensors: pixels, uint8 [characters, 20, 28, 28], ink is 255.
    splits.parquet: a character a row, in the order of the pixels: character_index, alphabet, character, split (train, validation,
        test or unused).
    held_out.safetensors: for either split `<split>.classes`, int64 [tasks, held_out_ways], and `<split>.drawings`, int64
        [tasks, held_out_ways, 20], the order in which a task uses up a class's drawings.
    distribution.json: the spec and the seed.
    """
    held_out: dict[str, Integers] = {}
    for split, stream in _STREAMS.items():
        tasks = getattr(spec.held_out, f"{split}_tasks")
        population = getattr(spec.characters, split) * spec.rotations
        classes, drawings = _draw(seed, stream, 0, tasks, spec.held_out_ways, population, DRAWINGS_PER_CHARACTER)
        held_out |= {f"{split}.classes": classes, f"{split}.drawings": drawings}
    save_file({"pixels": pictures.pixels}, folder / "pictures.safetensors")
    save_file(held_out, folder / "held_out.safetensors")
    _splits(spec, seed, pictures).to_parquet(folder / "splits.parquet", index=False)
    (folder / "distribution.json").write_text(
        json.dumps(spec.model_dump(mode="json", exclude={"folder"}) | {"seed": seed}, indent=1)
    )


def _splits(spec: OmniglotSpec, seed: int, pictures: Pictures) -> pd.DataFrame:
    count = len(pictures.characters)
    sizes = {split: getattr(spec.characters, split) for split in ("train", "validation", "test")}
    sizes["unused"] = count - sum(sizes.values())
    split = np.empty(count, dtype=object)
    shuffled = np.argsort(uniform(seed, Stream.SPLIT, 0, 1, count)[0], kind="stable")
    split[shuffled] = np.repeat(list(sizes), list(sizes.values()))
    columns = {"alphabet": pictures.alphabets, "character": pictures.characters, "split": split}
    return pd.DataFrame({"character_index": np.arange(count), **columns})


def _draw(seed: int, stream: Stream, start: int, count: int, ways: int, classes: int, drawings: int) -> tuple[Integers, Integers]:
    """Distinct classes [count, ways] and distinct drawings of each [count, ways, drawings] of the tasks from index `start` on."""
    numbers = uniform(seed, stream, start, count, ways * (1 + drawings))
    return (
        without_replacement(numbers[:, :ways], classes),
        without_replacement(numbers[:, ways:].reshape(count, ways, drawings), DRAWINGS_PER_CHARACTER),
    )


@dataclass(frozen=True)
class Omniglot:
    """The distribution in memory.

    pixels: split → uint8 [classes, 20, 28, 28], with the rotations as classes.
    held_out_tasks: as in held_out.safetensors.
    """

    spec: OmniglotSpec
    seed: int
    pixels: Mapping[Split, Tensor]
    held_out_tasks: Mapping[str, Tensor]

    @classmethod
    def load(cls, folder: Path) -> "Omniglot":
        values = json.loads((folder / "distribution.json").read_text())
        seed = values.pop("seed")
        spec = OmniglotSpec.model_validate(values)
        pixels = torch.from_numpy(load_file(folder / "pictures.safetensors")["pixels"])
        split_of = pd.read_parquet(folder / "splits.parquet")["split"].to_numpy()
        splits: tuple[Split, ...] = ("train", "validation", "test")
        by_split = {split: _rotated(pixels[torch.from_numpy(split_of == split)], spec.rotations) for split in splits}
        held_out = {name: torch.from_numpy(array) for name, array in load_file(folder / "held_out.safetensors").items()}
        return cls(spec, seed, by_split, held_out)

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

    def held_out(self, split: HeldOutSplit, episode: Episode) -> TaskBatch:
        """All tasks of a split: the first `ways` stored classes, with the first `shots` of their drawings as support.

        The last `queries` drawings are the queries, so that these stay the same whatever the number of shots.
        """
        ways, needed = _ways(episode), episode.shots + episode.queries
        classes, drawings = self.held_out_tasks[f"{split}.classes"], self.held_out_tasks[f"{split}.drawings"]
        if ways > classes.shape[1] or needed > DRAWINGS_PER_CHARACTER:
            raise ValueError(
                f"{ways} ways with {needed} drawings of each: expected at most {classes.shape[1]} ways, as stored, and "
                f"{DRAWINGS_PER_CHARACTER} drawings"
            )
        drawings = torch.cat(
            (drawings[:, :ways, : episode.shots], drawings[:, :ways, DRAWINGS_PER_CHARACTER - episode.queries :]), -1
        )
        return self._batch(split, classes[:, :ways], drawings, episode)

    def _batch(self, split: Split, classes: Tensor, drawings: Tensor, episode: Episode) -> TaskBatch:
        """Tasks from classes [T, ways] and drawings [T, ways, shots + queries]: examples are ordered by label, 0, 0, …, 1, 1, …"""
        tasks, ways = classes.shape

        def examples(chosen: Tensor) -> tuple[Tensor, Tensor]:
            each = chosen.shape[-1]
            rows = (classes[..., None] * DRAWINGS_PER_CHARACTER + chosen).flatten()
            x = self.pixels[split].flatten(0, 1).index_select(0, rows) / 255
            y = torch.arange(ways).repeat_interleave(each).repeat(tasks, 1)
            return x.view(tasks, ways * each, 1, *x.shape[1:]), y

        support, query = drawings[..., : episode.shots], drawings[..., episode.shots :]
        return TaskBatch(*examples(support), *examples(query), classes=classes)


def _ways(episode: Episode) -> int:
    if episode.ways is None:
        raise ValueError("an Omniglot task needs a number of ways, and the episode has none")
    return episode.ways


def _rotated(pixels: Tensor, rotations: int) -> Tensor:
    """Classes from characters: [characters, 20, side, side] → [characters · rotations, 20, side, side]."""
    turned = [torch.rot90(pixels, quarter, (-2, -1)) for quarter in range(0, 4, 4 // rotations)]
    return torch.stack(turned, dim=1).flatten(0, 1)
