"""The second pass over a table: rows as numbers, task by task, in files that are mapped into memory.

The folder that comes about:

x.npy: float32 [rows, features]; y.npy: float32 [rows, targets], or int64 [rows] with labels. Meta-train tasks come first, then
meta-validation and meta-test tasks, each by name. A task's rows are one after the other, in classification by label; within that as
in the table, or by time.
cells.npy: int64 [cells, 4], for each task, or each label of a task: the task's number, the label, the first row, how many rows.
table.json: the tasks of each split by name, `preparation` (see `preparing`), and what is to be said of the data.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from metaopt_core.distributions.preparing import Preparation, numbers, text
from metaopt_core.distributions.table.fitting import Found, fit, task_codes, with_targets
from metaopt_core.distributions.table.roles import Roles, roles
from metaopt_core.distributions.table.settings import SPLITS, TableSettings
from metaopt_core.distributions.table.source import Batch, read
from metaopt_core.progress import bar

_FLUSHED = 1 << 28  # bytes that are written before pages of the file are given back
Integers = npt.NDArray[np.int64]


def write(spec: TableSettings, seed: int, folder: Path) -> Preparation:
    """Read the table twice, and write what the other stages need. Raises UserError for data that can't be used."""
    used = roles(spec)
    found = fit(spec, used, seed)
    tasks = {split: sorted(found.tasks.members(split), key=lambda task: found.tasks.names[task]) for split in SPLITS}
    labels = _labels(spec, found)
    cells, cell_of = _cells(found, tasks, labels)
    unseen = _Rows(spec, used, found, cells, cell_of, labels, folder).write()
    np.save(folder / "cells.npy", cells)
    names = {split: [found.tasks.names[task] for task in members] for split, members in tasks.items()}
    told = _told(spec, found, names, unseen)
    whole = {"preparation": found.preparation.as_json(), "tasks": names, "labels": labels, "told": told}
    (folder / "table.json").write_text(json.dumps(whole), encoding="utf-8")
    return found.preparation


def _labels(spec: TableSettings, found: Found) -> list[str]:
    """The labels of a classification by their numbers."""
    if spec.problem == "regression":
        return []
    return list(found.preparation.classes) or sorted({label for _, label in found.tasks.labels})


def _cells(found: Found, tasks: Mapping[str, list[int]], labels: list[str]) -> tuple[Integers, npt.NDArray[np.int64]]:
    """The cells in order, and (task, label) → the number of the cell, as an array [tasks, labels]."""
    order = [task for split in SPLITS for task in tasks[split]]
    width = max(1, len(labels))
    cell_of = np.full((len(found.tasks.names), width), -1)
    rows: list[tuple[int, int, int, int]] = []
    first = 0
    for number, task in enumerate(order):
        counts = [found.tasks.labels[task, label] for label in labels] or [found.tasks.rows[task]]
        for label, count in enumerate(counts):
            if count:
                cell_of[task, label] = len(rows)
                rows.append((number, label, first, count))
                first += count
    return np.array(rows, dtype=np.int64).reshape(-1, 4), cell_of


class _Rows:
    """Writes the rows to their places."""

    def __init__(
        self, spec: TableSettings, used: Roles, found: Found, cells: Integers, cell_of: Integers, labels: list[str], folder: Path
    ):
        self.spec, self.used, self.found, self.cells, self.cell_of = spec, used, found, cells, cell_of
        self.label_of = {label: number for number, label in enumerate(labels)}
        self.paths = {name: folder / f"{name}.npy" for name in ("x", "y", "time")}
        self.filled = cells[:, 2].copy()
        self.rows = int(cells[:, 3].sum())

    def write(self) -> dict[str, int]:
        """Column → held-out rows with a category that training hasn't seen."""
        preparation, spec = self.found.preparation, self.spec
        outputs = np.float32 if spec.problem == "regression" else np.int64
        self._make("x", (self.rows, len(preparation.names)), np.float32)
        self._make("y", (self.rows, len(preparation.targets)) if spec.problem == "regression" else (self.rows,), outputs)
        if spec.time is not None:
            self._make("time", (self.rows,), np.float64)
        unseen = {column.column: 0 for column in preparation.categorical}
        files = {name: np.load(path, mmap_mode="r+") for name, path in self.paths.items() if path.exists()}
        done = unflushed = 0
        with bar(self.rows, "reading the table") as progress:
            for batch in read(spec, self.used.wanted):
                written = self._batch(batch, files, unseen)
                done += written
                unflushed += written * 4 * len(preparation.names)
                if unflushed > _FLUSHED:
                    files = {
                        name: np.load(self.paths[name], mmap_mode="r+") for name in files
                    }  # the pages of the old ones are freed
                    unflushed = 0
                progress.update(done)
        if spec.time is not None:
            self._by_time(files)
            self.paths["time"].unlink()
        for file in files.values():
            file.flush()
        return {name: count for name, count in unseen.items() if count}

    def _make(self, name: str, shape: tuple[int, ...], kind: Any) -> None:
        np.lib.format.open_memmap(self.paths[name], mode="w+", dtype=kind, shape=shape).flush()

    def _batch(self, batch: Batch, files: Mapping[str, Any], unseen: dict[str, int]) -> int:
        spec, preparation = self.spec, self.found.preparation
        codes, kept = task_codes(spec, batch, self.found.tasks), with_targets(spec, batch)
        label = np.zeros(len(kept), dtype=np.int64)
        if spec.problem == "classification":
            encoded = text(batch.columns[spec.target_columns[0]]).take(pa.array(kept)).dictionary_encode()
            numbered = np.array([self.label_of[name] for name in encoded.dictionary.to_pylist()], dtype=np.int64)
            label = numbered[np.asarray(encoded.indices)]
        cell = self.cell_of[codes[kept], label]
        used = cell >= 0  # tasks that no split has are left out
        kept, cell, label = kept[used], cell[used], label[used]
        if not len(kept):
            return 0
        rows = {name: array.take(pa.array(kept)) for name, array in batch.columns.items()}
        place = self._places(cell)
        files["x"][place] = preparation.x(rows)
        files["y"][place] = preparation.y(rows) if spec.problem == "regression" else label
        if spec.time is not None:
            files["time"][place] = numbers(rows[spec.time])
        split = np.array(self.found.tasks.splits)[codes[kept]]
        for column in preparation.categorical:
            unseen[column.column] += int(((column.codes(text(rows[column.column])) == -2) & (split > 0)).sum())
        return len(kept)

    def _places(self, cell: Integers) -> Integers:
        """Where the rows go: behind those of their cell that came before."""
        order = np.argsort(cell, kind="stable")
        names, firsts, counts = np.unique(cell[order], return_index=True, return_counts=True)
        place = np.empty(len(cell), dtype=np.int64)
        place[order] = np.arange(len(cell)) - np.repeat(firsts - self.filled[names], counts)
        self.filled[names] += counts
        return place

    def _by_time(self, files: Mapping[str, Any]) -> None:
        for _, _, first, count in self.cells:
            there = slice(first, first + count)
            order = np.argsort(files["time"][there], kind="stable")
            for name in ("x", "y"):
                files[name][there] = files[name][there][order]


def _told(spec: TableSettings, found: Found, names: Mapping[str, list[str]], unseen: Mapping[str, int]) -> dict[str, Any]:
    """What is to be said of the data: counts, and what may be wrong with them."""
    rows = {split: sum(found.tasks.rows[task] for task in found.tasks.members(split)) for split in SPLITS}
    told: dict[str, Any] = {
        "rows": found.rows,
        "rows_without_target": found.dropped,
        "features": len(found.preparation.names),
        "splits": {split: {"tasks": len(names[split]), "rows": rows[split]} for split in SPLITS},
        "columns_left_out": found.unused,
    }
    warnings = [
        f"{count:,} held-out rows have a value of {name} that no meta-train task has: it counts as no category"
        for name, count in unseen.items()
    ]
    if found.shared is not None and found.shared[0]:
        shared, of = found.shared
        warnings.append(f"{shared:,} of {of:,} values of {spec.entity} are in two splits: test tasks may be known from training")
    listed = sum(map(len, names.values()))
    if (unused := len(found.tasks.names) - listed) > 0:
        warnings.append(f"{unused:,} tasks are in no split, or have no row with a target")
    return told | {"warnings": warnings}
