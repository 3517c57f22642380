"""How tasks are drawn from a table's rows, which stay in files that are mapped into memory.

A task of a regression is one cell of rows, a task of a classification has a cell for each label. In each cell some rows become the
support set and others the queries, in random order, or, where the table has times, earlier ones the support set and later ones the
queries. Smaller tasks are padded with weight 0.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from metaopt_core.distributions.batch import MOST_ROWS, Episode, HeldOutSplit, PooledSplit, Prediction, Rows, TaskBatch, own_shots
from metaopt_core.distributions.findings import Findings
from metaopt_core.distributions.preparing import Preparation
from metaopt_core.distributions.random import NEVER_TRAINED_ON, Stream, uniform, without_replacement
from metaopt_core.distributions.table import checking, figures
from metaopt_core.distributions.table.settings import SPLITS, TableSettings
from metaopt_core.errors import UserError

Integers = npt.NDArray[np.int64]
_STREAMS: Mapping[HeldOutSplit, Stream] = {"validation": Stream.VALIDATION, "test": Stream.TEST}
_SHUFFLED = 1024  # rows of a cell that are shuffled as a whole; of more rows a few are drawn
_REPEATS_APART = 2**24  # more than there are tasks of a split
_NAMED = 10  # tasks that a message names


@dataclass(frozen=True)
class Split:
    """The tasks of a split. names: [tasks]; cells: the numbers of their cells [tasks, labels], −1 where there is none."""

    name: str
    names: Sequence[str]
    cells: Integers


@dataclass(frozen=True)
class Drawn:
    """Which rows of some tasks' cells are which: places within them [tasks, ways, …], and how many of these count [tasks, ways]."""

    support: Integers
    query: Integers
    shots: Integers
    queries: Integers


@dataclass(frozen=True)
class Table:
    """A table whose rows stay on disk.

    x, y, cells: as in the files that `writing` describes. spec.seed: of splits and held-out tasks.
    """

    spec: TableSettings
    seed: int
    x: npt.NDArray[np.float32] = field(repr=False)
    y: npt.NDArray[Any] = field(repr=False)
    cells: Integers
    splits: Mapping[str, Split]
    labels: Sequence[str]
    preparation: Preparation
    told: Mapping[str, Any]

    @classmethod
    def load(cls, spec: TableSettings, seed: int, folder: Path) -> "Table":
        made = json.loads((folder / "table.json").read_text(encoding="utf-8"))
        cells = np.load(folder / "cells.npy")
        per_task = spec.problem == "classification" and spec.labels == "per_task"
        splits, first = {}, 0
        for split in SPLITS:
            names = made["tasks"][split]
            members = [cells_of_task(cells, first + number, len(made["labels"]), per_task) for number in range(len(names))]
            splits[split] = Split(split, names, _padded(members))
            first += len(names)
        return cls(
            spec, seed, np.load(folder / "x.npy", mmap_mode="r"), np.load(folder / "y.npy", mmap_mode="r"), cells, splits,
            made["labels"], Preparation.from_json(made["preparation"]), made["told"],
        )  # fmt: skip

    @property
    def train_classes(self) -> int | None:
        """Of labels that mean something within their task alone; those that all tasks share are no classes to choose from."""
        if self.spec.problem == "regression" or self.spec.labels == "shared":
            return None
        return int((self.splits["train"].cells >= 0).sum())

    @property
    def feature_columns(self) -> dict[str, list[int]]:
        """Column of the table → the numbers of its features."""
        return self.preparation.features_of

    def train(self, episode: Episode, start: int, count: int) -> TaskBatch:
        """The meta-train tasks with indices start … start+count−1: each is as likely (or by its rows), and so are its rows."""
        split = self.splits["train"]
        numbers = uniform(self.seed, Stream.TRAIN, start, count, self._width(split, episode))
        task = self._chosen(split, episode, numbers[:, 0])
        wanted = own_shots(episode, self.seed, Stream.TRAIN_SHOTS, start, count).numpy()
        return self._batch(split, task, numbers[:, 1:], wanted, episode, training=True)

    def train_sample(self, trained: Episode, episode: Episode, start: int, count: int) -> TaskBatch:  # noqa: ARG002
        """Meta-train tasks in turn, in the form of held-out ones."""
        split = self.splits["train"]
        enough = self._enough(split, episode)
        task = np.array(enough)[np.arange(start, start + count) % len(enough)]
        numbers = uniform(self.seed, Stream.TRAIN, NEVER_TRAINED_ON + start, count, self._width(split, episode))
        wanted = own_shots(episode, 0, Stream.HELD_OUT_SHOTS, start, count).numpy()
        return self._batch(split, task, numbers[:, 1:], wanted, episode)

    def held_out(self, split: HeldOutSplit, episode: Episode, start: int, count: int) -> TaskBatch:
        """Tasks of a split: their queries are the same whatever the number of shots, and fewer shots are some of more shots."""
        of, task = self.splits[split], np.array(self.enough(split, episode)[start : start + count])
        assert self.spec.seed is not None  # `generate` has written it
        first, width = int(task[0]), self._width(of, episode)
        span = int(task[-1]) + 1 - first
        numbers = uniform(self.spec.seed, _STREAMS[split], episode.repeat * _REPEATS_APART + first, span, width)[task - first]
        wanted = own_shots(episode, 0, Stream.HELD_OUT_SHOTS, start, len(task)).numpy()
        return self._batch(of, task, numbers[:, 1:], wanted, episode)

    def held_out_count(self, split: HeldOutSplit) -> int:
        return len(self.splits[split].names)

    def enough(self, split: HeldOutSplit, episode: Episode) -> Sequence[int]:
        """Raises UserError where no task has enough rows, or some haven't and the spec wants none to be left out."""
        return self._enough(self.splits[split], episode)

    def task_names(self, split: HeldOutSplit) -> Sequence[str]:
        return self.splits[split].names

    def rows(self, split: PooledSplit) -> Rows:
        """Of each task as many rows as all have, or all of them: evenly over the table's order."""
        of = self.splits[split]
        each = max(1, MOST_ROWS // len(of.names))
        rows, tasks = [], []
        for number, cells in enumerate(of.cells):
            there = np.concatenate([np.arange(self.cells[cell, 2], self.cells[cell, 2:].sum()) for cell in cells[cells >= 0]])
            chosen = there if len(there) <= each else there[np.linspace(0, len(there) - 1, each).astype(int)]
            rows.append(chosen)
            tasks.append(np.full(len(chosen), number))
        chosen, task = np.concatenate(rows), np.concatenate(tasks)
        return Rows(torch.from_numpy(self.x[chosen]), torch.from_numpy(self.y[chosen]), torch.from_numpy(task))

    def findings(self) -> Findings:
        split, rows = self.splits["train"], self.rows("train")
        facts = checking.facts(self.preparation, self.told, self.labels, rows)
        warnings = checking.warnings(self.preparation, self.told, self.labels, rows, split.names)
        sizes = {name: self.sizes(of.cells).sum(1).tolist() for name, of in self.splits.items()}
        return Findings(facts, warnings, sizes)

    def on(self, device: torch.device) -> "Table":  # noqa: ARG002 - tasks are drawn from files, and moved then
        return self

    def shifted(self, changes: Mapping[str, Any]) -> "Table":  # noqa: ARG002
        return self

    def contents(self) -> Mapping[str, Any]:
        return self.told

    def overview(self) -> Figure:
        sizes = {name: self.sizes(split.cells) for name, split in self.splits.items()}
        return figures.overview(sizes, self.preparation, self.labels, self.rows("train"), self.train_classes is not None)

    def examples(self, tasks: TaskBatch, predictions: Sequence[Prediction]) -> Figure:
        return figures.examples(self.preparation, self.labels, tasks, predictions)

    # --- which tasks, which rows ----------------------------------------------------------------------------------------

    def sizes(self, cells: Integers) -> Integers:
        """Rows of cells; 0 where there is none."""
        return np.where(cells >= 0, self.cells[:, 3][cells], 0)

    def fitting(self, split: Split, episode: Episode, training: bool = False) -> npt.NDArray[np.bool_]:
        """Which cells [tasks, labels] have enough rows: in training, for the fewest shots and one query."""
        least = episode.shots if episode.fewest is None else episode.fewest
        return self.sizes(split.cells) >= least + (1 if training else episode.queries)

    def _enough(self, split: Split, episode: Episode, training: bool = False) -> list[int]:
        self._check_ways(episode)
        fits = self.fitting(split, episode, training).sum(1) >= (episode.ways or 1)
        if not fits.any() or (self.spec.small_tasks == "error" and not fits.all()):
            raise self._too_small(split, episode, np.flatnonzero(~fits), training)
        return [int(number) for number in np.flatnonzero(fits)]

    def _check_ways(self, episode: Episode) -> None:
        if self.spec.problem == "classification" and self.spec.labels == "shared" and episode.ways != len(self.labels):
            raise UserError(
                f"train.ways: {episode.ways}, but {self.spec.target_columns[0]} has {len(self.labels)} values in all tasks "
                f"({', '.join(self.labels[:_NAMED])}): expected {len(self.labels)}, or generate.labels: per_task"
            )

    def _too_small(self, split: Split, episode: Episode, small: Integers, training: bool) -> UserError:
        each = " of each class" if episode.ways else ""
        least = episode.shots if episode.fewest is None else episode.fewest
        needed = least + (1 if training else episode.queries)
        rows = np.sort(self.sizes(split.cells), 1)[:, ::-1][:, (episode.ways or 1) - 1] if split.cells.shape[1] else np.zeros(0)
        shown = ", ".join(f"{split.names[task]} ({rows[task]})" for task in small[:_NAMED])
        more = f" and {len(small) - _NAMED} more" if len(small) > _NAMED else ""
        fitting = f"the largest has {rows.max()}" if len(small) == len(split.names) else f"all have {rows.min()} or more"
        drop = ", or generate.small_tasks: drop" if len(small) < len(split.names) else ""
        return UserError(
            f"{'train' if training else 'shots and queries'}: {len(small)} of {len(split.names)} meta-{split.name} tasks have "
            f"fewer than the {needed} rows{each} that {least} shots and {needed - least} queries take: {shown}{more}; {fitting}: "
            f"expected fewer shots or queries{drop}"
        )

    def _chosen(self, split: Split, episode: Episode, numbers: npt.NDArray[np.float64]) -> Integers:
        """Tasks of a split by uniform numbers."""
        enough = np.array(self._enough(split, episode, training=True))
        if self.spec.weight == "tasks":
            return np.asarray(enough[(numbers * len(enough)).astype(int)])
        shares = np.cumsum(self.sizes(split.cells[enough]).sum(1), dtype=float)
        return np.asarray(enough[np.searchsorted(shares / shares[-1], numbers, side="right")])

    def _width(self, split: Split, episode: Episode) -> int:
        """Uniform numbers that an index owns: for the task, the choice of labels, and the rows of each. The same for any shots."""
        return int(1 + split.cells.shape[1] + (episode.ways or 1) * max(self._shuffled(split), episode.shots + episode.queries))

    def _shuffled(self, split: Split) -> int:
        return min(_SHUFFLED, int(self.sizes(split.cells).max(initial=1)))

    def _cells(self, split: Split, task: Integers, episode: Episode, numbers: Any, training: bool) -> Integers:
        """The cells of tasks [tasks, ways]: all that there are, or of labels of a task's own any that are large enough."""
        if episode.ways is None or self.spec.labels == "shared":
            return np.asarray(split.cells[task])
        fits = self.fitting(split, episode, training)[task]
        order = np.argsort(np.where(fits, numbers, 2.0), axis=1, kind="stable")[:, : episode.ways]
        return np.take_along_axis(split.cells[task], order, 1)

    def _batch(
        self,
        split: Split,
        task: Integers,
        numbers: npt.NDArray[np.float64],
        wanted: Integers,
        episode: Episode,
        training: bool = False,
    ) -> TaskBatch:
        labels = split.cells.shape[1]
        cells = self._cells(split, task, episode, numbers[:, :labels], training)
        sizes = self.sizes(cells)
        shots = np.broadcast_to(wanted[:, None], sizes.shape)
        least = episode.shots if episode.fewest is None else episode.fewest
        small = sizes < shots + episode.queries
        shots = np.where(small, np.minimum(shots, np.maximum(least, sizes // 2 if training else sizes - episode.queries)), shots)
        queries = np.minimum(episode.queries, sizes - shots)
        of_rows = numbers[:, labels:].reshape(len(task), cells.shape[1], -1)
        if self.spec.time is not None:
            drawn = _in_time(of_rows, sizes, shots, queries, episode, training)
        else:
            drawn = _in_any_order(of_rows, sizes, shots, queries, episode, self._shuffled(split))
        least_rows = episode.shots + episode.queries
        padded = episode.fewest is not None or bool((self.sizes(split.cells[split.cells >= 0]) < least_rows).any())
        return self._made(cells, drawn, padded, split)

    def _made(self, cells: Integers, drawn: Drawn, padded: bool, split: Split) -> TaskBatch:
        """The tasks of the rows: examples are ordered by label."""
        tasks, ways = cells.shape
        first, last = self.cells[cells, 2][..., None], (self.cells[cells, 2] + self.cells[cells, 3] - 1)[..., None]

        def examples(place: Integers, count: Integers) -> tuple[Tensor, Tensor, Tensor | None]:
            rows = np.minimum(first + np.maximum(place, 0), last).reshape(tasks, -1)
            weight = (np.arange(place.shape[2]) < count[..., None]).reshape(tasks, -1) if padded else None
            if self.spec.problem == "regression":
                y = torch.from_numpy(self.y[rows])
            else:
                y = torch.arange(ways).repeat_interleave(place.shape[2]).expand(tasks, -1).contiguous()
            return torch.from_numpy(self.x[rows]), y, None if weight is None else torch.from_numpy(weight.astype(np.float32))

        support_x, support_y, support_weight = examples(drawn.support, drawn.shots)
        query_x, query_y, query_weight = examples(drawn.query, drawn.queries)
        classes = None
        if self.spec.problem == "classification":
            shared = torch.arange(ways).expand(tasks, -1)
            classes = torch.from_numpy(cells - int(split.cells[split.cells >= 0].min())) if self.train_classes else shared
        batch = TaskBatch(support_x, support_y, query_x, query_y, support_weight, query_weight, classes)
        return self._centered(batch) if self.preparation.centered else batch

    def _centered(self, tasks: TaskBatch) -> TaskBatch:
        """Targets less the tasks' origins (`Preparation.origin`)."""
        weight = None if tasks.support_weight is None else tasks.support_weight.double().numpy()
        origin = torch.from_numpy(self.preparation.origin(tasks.support_y.double().numpy(), weight)).float()
        parts = (tasks.support_x, tasks.support_y - origin, tasks.query_x, tasks.query_y - origin)
        return TaskBatch(*parts, tasks.support_weight, tasks.query_weight, origin=origin[:, 0])


def _in_any_order(
    numbers: npt.NDArray[np.float64], sizes: Integers, shots: Integers, queries: Integers, episode: Episode, shuffled: int
) -> Drawn:
    """Queries first, so that they are the same whatever the number of shots."""
    wanted = episode.shots + episode.queries
    if sizes.max(initial=0) <= shuffled:
        keys = np.where(np.arange(shuffled) < sizes[..., None], numbers[..., :shuffled], 2.0)
        order = np.argsort(keys, axis=-1, kind="stable")[..., :wanted]
        if order.shape[-1] < wanted:
            order = np.concatenate([order, np.zeros((*order.shape[:-1], wanted - order.shape[-1]), dtype=np.int64)], -1)
    else:
        order = without_replacement(numbers[..., :wanted], sizes)
    place = np.minimum(queries[..., None] + np.arange(episode.shots), wanted - 1)
    return Drawn(np.take_along_axis(order, place, -1), order[..., : episode.queries], shots, queries)


def _in_time(
    numbers: npt.NDArray[np.float64], sizes: Integers, shots: Integers, queries: Integers, episode: Episode, training: bool
) -> Drawn:
    """Support rows come before query rows. In training both are anywhere; of a held-out task the queries are the last rows, and the
    support rows the first ones, or in a further draw any that follow one another."""
    last = sizes - queries  # where queries may begin
    begin = shots + (numbers[..., 0] * (last - shots + 1)).astype(np.int64) if training else last
    first = (numbers[..., 1] * (begin - shots + 1)).astype(np.int64) if training or episode.repeat else np.zeros_like(begin)
    return Drawn(first[..., None] + np.arange(episode.shots), begin[..., None] + np.arange(episode.queries), shots, queries)


def cells_of_task(cells: Integers, task: int, labels: int, per_task: bool) -> Integers:
    """The numbers of a task's cells, by label; those of labels that it lacks are −1 where labels mean the same in every task."""
    first, last = np.searchsorted(cells[:, 0], (task, task + 1))
    if per_task or not labels:
        return np.arange(first, last)
    found = np.full(labels, -1)
    found[cells[first:last, 1]] = np.arange(first, last)
    return found


def _padded(members: Sequence[Integers]) -> Integers:
    """Numbers of cells [tasks, labels], with −1 for those of tasks that have fewer."""
    found = np.full((len(members), max(map(len, members), default=1)), -1)
    for row, cells in zip(found, members, strict=True):
        row[: len(cells)] = cells
    return found
