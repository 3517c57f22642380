"""How classification tasks are drawn from classes of pictures.

A split's class c is its class c // rotations, turned counterclockwise by (c % rotations) steps of 360° / rotations. A task is
`ways` distinct classes of a split, with distinct pictures of each as support and queries. The pixels stay in their file until they
are asked for, so they may be larger than memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from metaopt_core.distributions.batch import Episode, HeldOutSplit, Prediction, TaskBatch
from metaopt_core.distributions.contract import Generated
from metaopt_core.distributions.findings import Findings
from metaopt_core.distributions.pictures import figures
from metaopt_core.distributions.pictures.augmenting import NUMBERS, augmented
from metaopt_core.distributions.pictures.settings import PicturesSettings
from metaopt_core.distributions.pictures.tasks import as_tasks
from metaopt_core.distributions.random import Stream, uniform, without_replacement
from metaopt_core.distributions.splits import SPLITS, SplitName, shown
from metaopt_core.errors import UserError

Integers = npt.NDArray[np.int64]

_STREAMS: Mapping[HeldOutSplit, Stream] = {"validation": Stream.VALIDATION, "test": Stream.TEST}
_REPEATS_APART = 2**32  # indices between two draws of the support pictures of a held-out task
_ON_DEVICE = 4 * 2**30  # bytes of pixels that are moved to a GPU


@dataclass(frozen=True)
class Classes:
    """The classes of a split. names: of each. first, size [classes]: its pictures in `rows`. rows: places among all pixels."""

    names: Sequence[str]
    first: Integers
    size: Integers
    rows: Integers

    @classmethod
    def of(cls, table: pd.DataFrame) -> "Classes":
        names = [f"{group}/{label}" if group else label for group, label in zip(table["group"], table["label"], strict=True)]
        kept, first, size = np.unique(names, return_index=True, return_counts=True)
        order = np.argsort(first)
        return cls([str(name) for name in kept[order]], first[order], size[order], table["row"].to_numpy(np.int64))


@dataclass(frozen=True)
class Pictures(Generated):
    """The distribution. seed: of training tasks; held_out_seed: of the others. pixels: all pictures, on the disk or a GPU."""

    spec: PicturesSettings
    seed: int
    held_out_seed: int
    splits: Mapping[SplitName, Classes]
    pixels: npt.NDArray[np.uint8] | Tensor
    left_out: int

    @classmethod
    def load(cls, spec: PicturesSettings, seed: int, folder: Path) -> "Pictures":
        table = pd.read_parquet(folder / "pictures.parquet")
        splits = {split: Classes.of(table[table["split"] == split]) for split in SPLITS}
        pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        assert spec.seed is not None  # `generate` has written it
        return cls(spec, seed, spec.seed, splits, pixels, len(pd.read_csv(folder / "left_out.csv")))

    @property
    def train_classes(self) -> int:
        return self._classes("train")

    def _classes(self, split: SplitName) -> int:
        return len(self.splits[split].names) * self.spec.rotations

    def train(self, episode: Episode, start: int, count: int) -> TaskBatch:
        """The meta-train tasks with indices start … start+count−1, each a function of (seed, index, episode)."""
        ways, classes, rows = self._drawn(episode, start, count)
        if not self.spec.augment:
            return self._batch(classes, rows, episode)
        width = ways * (episode.shots + episode.queries) * NUMBERS
        return self._batch(classes, rows, episode, uniform(self.seed, Stream.TRAIN_AUGMENTATION, start, count, width))

    def train_sample(self, trained: Episode, episode: Episode, start: int, count: int) -> TaskBatch:  # noqa: ARG002
        """Meta-train tasks of the given shape, with pictures as they are."""
        _, classes, rows = self._drawn(episode, start, count)
        return self._batch(classes, rows, episode)

    def _drawn(self, episode: Episode, start: int, count: int) -> tuple[int, Integers, Integers]:
        """Ways, classes [tasks, ways] and rows of their pictures [tasks, ways, shots + queries]."""
        ways = self._ways("train", episode)
        needed, of = episode.shots + episode.queries, self.splits["train"]
        self._check_sizes("train", episode)
        numbers = uniform(self.seed, Stream.TRAIN, start, count, ways * (1 + needed))
        classes = without_replacement(numbers[:, :ways], self.train_classes)
        whole = classes // self.spec.rotations
        picks = without_replacement(numbers[:, ways:].reshape(count, ways, needed), of.size[whole])
        return ways, classes, of.rows[of.first[whole][..., None] + picks]

    def held_out(self, split: HeldOutSplit, episode: Episode, start: int, count: int) -> TaskBatch:
        """Tasks of a split as `generate`'s seed has them: the same queries whatever the number of shots or the draw of these."""
        ways, of, stored = self._ways(split, episode), self.splits[split], self.spec.held_out_ways
        self._check_sizes(split, episode)
        most = int(of.size.max())
        numbers = uniform(self.held_out_seed, _STREAMS[split], start, count, stored * (1 + most))
        classes = without_replacement(numbers[:, :stored], self._classes(split))[:, :ways]
        whole = classes // self.spec.rotations
        keys = numbers[:, stored:].reshape(count, stored, most)[:, :ways].copy()
        keys[np.arange(most) >= of.size[whole][..., None]] = 2.0  # no such picture: behind all others
        order = np.argsort(keys, axis=-1, kind="stable")
        queries, others = order[..., : episode.queries], order[..., episode.queries :]
        if episode.repeat:
            again = uniform(self.held_out_seed, _STREAMS[split], _REPEATS_APART * episode.repeat + start, count, stored * most)
            keys = again.reshape(count, stored, most)[:, :ways, : others.shape[-1]].copy()
            keys[np.arange(others.shape[-1]) >= (of.size[whole] - episode.queries)[..., None]] = 2.0
            others = np.take_along_axis(others, np.argsort(keys, axis=-1, kind="stable"), -1)
        picks = np.concatenate([others[..., : episode.shots], queries], -1)
        return self._batch(classes, of.rows[of.first[whole][..., None] + picks], episode)

    def held_out_count(self, split: HeldOutSplit) -> int:
        return {"validation": self.spec.held_out.validation_tasks, "test": self.spec.held_out.test_tasks}[split]

    def enough(self, split: HeldOutSplit, episode: Episode) -> Sequence[int]:
        """All of them; raises UserError where a class has too few pictures."""
        self._check_sizes(split, episode)
        return range(self.held_out_count(split))

    def _ways(self, split: SplitName, episode: Episode) -> int:
        most = self._classes(split) if split == "train" else self.spec.held_out_ways
        if episode.ways is None or episode.ways > most:
            raise UserError(
                f"train.ways: {episode.ways} ways, but the {split} split has {self._classes(split)} classes"
                f"{'' if split == 'train' else f', of which tasks have {most}'}: expected at most {most}"
            )
        return episode.ways

    def _check_sizes(self, split: SplitName, episode: Episode) -> None:
        of, needed = self.splits[split], episode.shots + episode.queries
        if of.size.min() >= needed:
            return
        few = [f"{name} ({size})" for name, size in zip(of.names, of.size, strict=True) if size < needed]
        raise UserError(
            f"shots and queries: {episode.shots} shots and {episode.queries} queries of each class, but {len(few)} of the "
            f"{len(of.names)} {split} classes have fewer than {needed} pictures: {shown(few)}: expected at most "
            f"{of.size.min()} together, or generate.fewest_pictures: {needed}, which leaves these classes out"
        )

    def on(self, device: torch.device) -> "Pictures":
        """With the pixels on a GPU, if they are not too large for that; else tasks are drawn from the disk, and moved then."""
        if device.type == "cpu" or self.pixels.nbytes > _ON_DEVICE:
            return self
        return replace(self, pixels=torch.from_numpy(np.array(self.pixels)).to(device))

    def shifted(self, changes: Mapping[str, Any]) -> "Pictures":  # noqa: ARG002 - ways, shots and queries are the episode's
        return self

    def contents(self) -> Mapping[str, Any]:
        splits = {name: {"classes": len(of.names), "pictures": int(of.size.sum())} for name, of in self.splits.items()}
        return {"splits": splits, "left_out": self.left_out}

    def findings(self) -> Findings:
        splits = {
            name: f"{len(of.names):,} classes of {of.size.min():,} to {of.size.max():,} pictures, {of.size.sum():,} in all"
            for name, of in self.splits.items()
        }
        facts = splits | ({"left out": f"{self.left_out:,} pictures or classes"} if self.left_out else {})
        seen = {hash(self._pixels(self.splits["train"].rows[i : i + 1]).numpy().tobytes()) for i in range(self._count("train"))}
        warnings = []
        for name in ("validation", "test"):
            rows = self.splits[name].rows
            same = sum(hash(self._pixels(rows[i : i + 1]).numpy().tobytes()) in seen for i in range(self._count(name)))
            if same:
                warnings.append(f"{same:,} pictures of {name} classes are also in training classes: they are no test of new ones")
        return Findings(facts, warnings)

    def _count(self, split: SplitName) -> int:
        return int(self.splits[split].size.sum())

    def overview(self) -> Figure:
        shown_rows = {name: figures.spread(of.names, of.first, of.size, of.rows) for name, of in self.splits.items()}
        pictures = {name: [(label, self._pixels(rows)) for label, rows in chosen] for name, chosen in shown_rows.items()}
        counts = {name: (len(of.names), int(of.size.sum())) for name, of in self.splits.items()}
        return figures.overview(pictures, counts, inverted=self.spec.invert)

    def examples(self, tasks: TaskBatch, predictions: Sequence[Prediction]) -> Figure:
        return figures.examples(tasks, predictions[0], inverted=self.spec.invert)

    def _pixels(self, rows: Integers) -> Tensor:
        """Pictures [N, channels, side, side], uint8."""
        if isinstance(self.pixels, Tensor):
            return self.pixels[torch.from_numpy(rows).to(self.pixels.device)]
        return torch.from_numpy(self.pixels[rows])

    def _batch(
        self, classes: Integers, rows: Integers, episode: Episode, numbers: npt.NDArray[np.float64] | None = None
    ) -> TaskBatch:
        """Tasks from classes [T, ways] and rows [T, ways, shots + queries], ordered by label; numbers: of augmentation."""
        tasks, ways, each = rows.shape
        pictures = self._pixels(rows.ravel())
        if self.spec.rotations > 1:
            turns = np.repeat((classes % self.spec.rotations * (4 // self.spec.rotations)).ravel(), each)
            for quarter in range(1, 4):
                turned = torch.from_numpy(np.flatnonzero(turns == quarter)).to(pictures.device)
                pictures[turned] = torch.rot90(pictures[turned], quarter, (-2, -1))
        x = pictures / 255
        if numbers is not None:
            x = augmented(x, numbers.reshape(len(x), NUMBERS), self.spec.augment)
        return as_tasks(x.view(tasks, ways, each, *x.shape[1:]), torch.from_numpy(classes).to(x.device), episode.shots)
