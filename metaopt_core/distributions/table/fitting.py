"""The first of two passes over a table: which tasks there are, and all that is fitted to those of the meta-train split.

A pass sees a few thousand rows at a time and keeps sums, so memory does not grow with the number of rows, except for a number or
two for each task.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from metaopt_core.distributions.preparing import Categorical, Numbers, Numeric, Preparation, joined, numbers, text
from metaopt_core.distributions.splits import share_of
from metaopt_core.distributions.table.roles import Roles
from metaopt_core.distributions.table.settings import SPLITS, TableSettings
from metaopt_core.distributions.table.source import Batch, read
from metaopt_core.errors import UserError

GUESSED_CATEGORIES = 50  # of a text column that the spec doesn't list: more make it none of categories
MOST_CATEGORIES = 500  # of a column: the rest of them are one
_SAMPLED = 200_000  # rows from which medians are taken
UNUSED = len(SPLITS)
Integers = npt.NDArray[np.int64]


@dataclass
class Tasks:
    """The tasks of a table, in the order in which they were met: name, group, split (its number in SPLITS), rows.

    labels: (task, label) → rows, in classification.
    """

    names: list[str] = field(default_factory=list)
    groups: list[str | None] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)
    rows: Counter[int] = field(default_factory=Counter)
    labels: Counter[tuple[int, str]] = field(default_factory=Counter)
    codes: dict[str, int] = field(default_factory=dict)

    def members(self, split: str) -> list[int]:
        return [task for task, number in enumerate(self.splits) if number == SPLITS.index(split) and self.rows[task]]


@dataclass
class Found:
    """What the first pass found.

    dropped: rows without a target; unused: column → why it is no feature; shared: how many entities are in two splits, of how many.
    """

    preparation: Preparation
    tasks: Tasks
    rows: int
    dropped: int
    unused: dict[str, str]
    shared: tuple[int, int] | None


class Sums:
    """Count, mean and sum of squared deviations of columns, by parts (Chan, Golub, LeVeque 1983); missing values don't count."""

    def __init__(self, width: int) -> None:
        self.count, self.mean, self.squares = np.zeros(width), np.zeros(width), np.zeros(width)

    def add(self, values: Numbers) -> None:
        """values [rows, columns]."""
        there = ~np.isnan(values)
        count = there.sum(0)
        mean = np.where(there, values, 0).sum(0) / np.maximum(count, 1)
        squares = np.square(np.where(there, values - mean, 0)).sum(0)
        total = np.maximum(self.count + count, 1)
        apart = mean - self.mean
        self.squares += squares + np.square(apart) * self.count * count / total
        self.mean += apart * count / total
        self.count += count

    @property
    def deviation(self) -> Numbers:
        return np.asarray(np.sqrt(self.squares / np.maximum(self.count, 1)))


class Sample:
    """Every n-th row of many, where n doubles whenever there are too many of them."""

    def __init__(self) -> None:
        self.parts: list[Numbers] = []
        self.stride, self.seen, self.kept = 1, 0, 0

    def add(self, values: Numbers) -> None:
        first = -self.seen % self.stride
        self.parts.append(values[first :: self.stride].astype(np.float32))
        self.seen += len(values)
        self.kept += len(self.parts[-1])
        if self.kept > _SAMPLED:
            self.parts = [np.concatenate(self.parts)[::2]]
            self.stride, self.kept = 2 * self.stride, len(self.parts[0])

    def medians(self) -> Numbers:
        with np.errstate(all="ignore"):
            whole = np.concatenate(self.parts)
            return np.array([np.median(column[~np.isnan(column)]) if (~np.isnan(column)).any() else np.nan for column in whole.T])


class Splitting:
    """Which split a task is in: by a hash, so that other tasks change nothing; by a column, or by lists of names."""

    def __init__(self, spec: TableSettings, seed: int):
        self.spec, self.seed = spec, seed
        self.listed: dict[str, int] = {}
        for split, file in spec.split.files.items():
            path, number = Path(file), SPLITS.index(split)
            for name in path.read_text(encoding="utf-8").splitlines():
                if name.strip() and self.listed.setdefault(name.strip(), number) != number:
                    raise UserError(
                        f"generate.split.{split}: {path} names {name.strip()}, and so does another split's file: expected one"
                    )

    def of(self, name: str, group: str | None, said: str | None) -> int:
        if self.spec.split.column is not None:
            if said not in SPLITS:
                raise UserError(
                    f"generate.split.column: {self.spec.split.column} is {said!r} for {name}: expected train, validation or test"
                )
            return SPLITS.index(said)
        if self.spec.split.files:
            return self.listed.get(name, UNUSED)
        share = share_of(name if group is None else group, self.seed)
        train, validation = float(self.spec.split.train), float(self.spec.split.validation)
        return 0 if share < train else 1 if share < train + validation else 2

    def check(self, tasks: Tasks, file: str) -> None:
        """Raise UserError for listed names that no task has, and splits without tasks."""
        if strange := [name for name in self.listed if name not in tasks.codes]:
            shown = ", ".join(strange[:10]) + (f" and {len(strange) - 10} more" if len(strange) > 10 else "")
            raise UserError(f"generate.split: {file} has no task {shown}: expected the names of its tasks, as in {tasks.names[0]}")
        counts = {split: len(tasks.members(split)) for split in SPLITS}
        if empty := [split for split, count in counts.items() if not count]:
            listed = ", ".join(f"{count} for {split}" for split, count in counts.items())
            groups = len({group for group in tasks.groups if group is not None})
            of_groups = f" of {groups} groups" if groups else ""
            raise UserError(
                f"generate.split: too few tasks: {file} has {len(tasks.names)}{of_groups}, which leaves {listed}: expected at "
                f"least one for {empty[0]}; other shares, another generate.seed, or files of task names"
            )


def fit(spec: TableSettings, roles: Roles, seed: int) -> Found:
    """The first pass. Raises UserError for what is wrong with rows, naming some of them."""
    splitting, tasks = Splitting(spec, seed), Tasks()
    regression = spec.problem == "regression"
    x, y, sample = Sums(len(roles.numeric)), Sums(len(spec.target_columns)), Sample()
    of_tasks = _OfTasks(len(spec.target_columns))
    categories: dict[str, Counter[str | None]] = {name: Counter() for name in roles.categorical}
    entities: list[list[npt.NDArray[np.uint64]]] = [[] for _ in range(UNUSED + 1)]
    rows = dropped = train_rows = 0
    file = ""
    for batch in read(spec, roles.wanted):
        file = batch.file.name
        rows += batch.rows
        kept = with_targets(spec, batch)
        dropped += batch.rows - len(kept)
        codes = task_codes(spec, batch, tasks, splitting)[kept]
        for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
            tasks.rows[int(code)] += int(count)
        split = np.array(tasks.splits)[codes]
        if spec.entity is not None:
            _note_entities(entities, text(batch.columns[spec.entity]).take(kept), split)
        trained = split == 0
        values = np.stack([_finite(batch, name) for name in roles.numeric], 1) if roles.numeric else np.empty((batch.rows, 0))
        values = values[kept]
        x.add(values[trained])
        sample.add(values[trained])
        train_rows += int(trained.sum())
        for name, counter in categories.items():
            if len(counter) <= 100 * MOST_CATEGORIES:
                found = batch.columns[name].take(pa.array(kept[trained])).value_counts()
                counter.update(dict(zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True)))
        if regression:
            targets = np.stack([_finite(batch, name) for name in spec.target_columns], 1)[kept]
            y.add(targets[trained])
            of_tasks.add(codes[trained], targets[trained])
        else:
            labels = text(batch.columns[spec.target_columns[0]]).take(pa.array(kept))
            _note_labels(tasks, codes, labels)
        if spec.time is not None:
            missing = np.flatnonzero(np.isnan(numbers(batch.columns[spec.time])))
            if len(missing):
                raise UserError(f"{file}: {_rows(batch, missing)}: {spec.time} is missing: expected the time of every row")
    if not rows:
        raise UserError(f"{file or spec.path}: there is no row: expected some below the names of the columns")
    if not tasks.rows:
        raise UserError(f"generate.target: no row of {file} has a value of {' and '.join(spec.target_columns)}: expected some")
    splitting.check(tasks, file)
    unused = dict(roles.unused)
    numeric = tuple(_numeric(spec, roles, x, sample.medians() if roles.numeric else np.empty(0), train_rows, unused))
    categorical = tuple(_categorical(spec, roles, categories, train_rows, unused))
    if not numeric and not categorical:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(unused.items())[:10])
        raise UserError(f"generate.features: none of {file}'s columns tells anything ({why}): expected at least one feature")
    units: dict[str, Any] = {}
    if regression:
        scaled = spec.scale.y != "none"
        if scaled and (flat := [name for name, one in zip(spec.target_columns, y.deviation, strict=True) if not one > 0]):
            raise UserError(
                f"generate.target: {flat[0]} is the same in all rows of the meta-train tasks: expected a target that varies"
            )
        means = y.mean if scaled else np.zeros(len(y.mean))
        scales = y.deviation if scaled else np.ones(len(y.mean))
        within, between = of_tasks.variances()
        units = {"means": means, "scales": scales, "within": within / scales**2, "between": between / scales**2}
    classes = _classes(spec, tasks) if not regression and spec.labels == "shared" else ()
    made = {key: tuple(map(float, value)) for key, value in units.items()}
    preparation = Preparation(
        numeric, categorical, spec.target_columns, **made, classes=classes, centered=regression and spec.scale.y == "support"
    )
    return Found(preparation, tasks, rows, dropped, unused, _shared(entities) if spec.entity is not None else None)


def with_targets(spec: TableSettings, batch: Batch) -> Integers:
    """The rows of a batch that have all targets. Raises UserError for infinite ones."""
    missing = np.zeros(batch.rows, dtype=bool)
    for name in spec.target_columns:
        array = batch.columns[name]
        missing |= np.isnan(_finite(batch, name)) if spec.problem == "regression" else np.asarray(array.is_null())
    return np.flatnonzero(~missing)


def task_codes(spec: TableSettings, batch: Batch, tasks: Tasks, splitting: Splitting | None = None) -> Integers:
    """The task of each row, by its number. splitting: for those that are met for the first time; they get numbers in order."""
    if spec.task_columns:
        names = joined([batch.columns[name] for name in spec.task_columns])
        nameless = np.asarray(pc.fill_null(pc.equal(pc.utf8_trim_whitespace(names), ""), True))
        if nameless.any():
            column = " or ".join(spec.task_columns)
            raise UserError(
                f"{batch.file.name}: {_rows(batch, np.flatnonzero(nameless))}: {column} is missing: expected the task's name"
            )
    else:
        names = pa.array([batch.file.stem]).take(pa.array(np.zeros(batch.rows, dtype=np.int64)))
    encoded = names.dictionary_encode()
    if splitting is not None:
        group = None if spec.group is None else text(batch.columns[spec.group])
        said = None if spec.split.column is None else text(batch.columns[spec.split.column])
        local = np.asarray(encoded.indices)
        firsts = np.unique(local, return_index=True)[1]
        for name, row in zip(encoded.dictionary.to_pylist(), firsts, strict=True):
            if name not in tasks.codes:
                of = None if group is None else group[int(row)].as_py()
                tasks.codes[name] = len(tasks.names)
                tasks.names.append(name)
                tasks.groups.append(of)
                tasks.splits.append(splitting.of(name, of, None if said is None else said[int(row)].as_py()))
    codes: Integers = np.array([tasks.codes[name] for name in encoded.dictionary.to_pylist()], dtype=np.int64)[
        np.asarray(encoded.indices)
    ]
    if splitting is not None:
        _refuse_two(batch, tasks, codes, group, "generate.group", spec.group)
        _refuse_two(batch, tasks, codes, said, "generate.split.column", spec.split.column)
    return codes


def _refuse_two(batch: Batch, tasks: Tasks, codes: Integers, values: pa.Array | None, key: str, column: str | None) -> None:
    """Raise UserError where a task has two values of what is to be the same in all of its rows."""
    if values is None:
        return
    pairs = pd.DataFrame({"task": codes, "value": values.to_pandas()}).drop_duplicates()
    for task, value in pairs.itertuples(index=False):
        known: Any = tasks.groups[task] if key == "generate.group" else SPLITS[tasks.splits[task]]
        value = None if pd.isna(value) else value
        if value != known:
            row = int(np.flatnonzero(codes == task)[0])
            raise UserError(
                f"{key}: {tasks.names[task]} has {value!r} and {known!r} in {column} ({batch.file.name}, about "
                f"{_rows(batch, [row])}): expected the same in all rows of a task"
            )


def _rows(batch: Batch, rows: Iterable[Any]) -> str:
    return batch.file.rows([batch.first + int(row) for row in rows])


def _finite(batch: Batch, name: str) -> Numbers:
    """A column's numbers. Raises UserError for infinite ones."""
    values = numbers(batch.columns[name])
    if np.isinf(values).any():
        raise UserError(
            f"{batch.file.name}: {_rows(batch, np.flatnonzero(np.isinf(values)))}: {name} is infinite: expected a finite number"
        )
    return values


class _OfTasks:
    """Sums of the targets of each task, for the variances within tasks and between them."""

    def __init__(self, width: int) -> None:
        self.sums = np.zeros((0, 1 + 2 * width))
        self.shift: Numbers | None = None

    def add(self, codes: Integers, targets: Numbers) -> None:
        if not len(codes):
            return
        if self.shift is None:
            self.shift = targets.mean(0)
        if (most := int(codes.max()) + 1) > len(self.sums):
            self.sums = np.concatenate([self.sums, np.zeros((2 * most - len(self.sums), self.sums.shape[1]))])
        centered = targets - self.shift
        for column, values in enumerate(itertools.chain([np.ones(len(codes))], centered.T, np.square(centered).T)):
            self.sums[:, column] += np.bincount(codes, values, minlength=len(self.sums))

    def variances(self) -> tuple[Numbers, Numbers]:
        """Within tasks, and between their means: by an analysis of variance, sizes unequal (Searle, Variance Components, 1992)."""
        sums = self.sums[self.sums[:, 0] > 0]
        width = (sums.shape[1] - 1) // 2
        sizes, first, second = sums[:, :1], sums[:, 1 : 1 + width], sums[:, 1 + width :]
        total, tasks = sizes.sum(), len(sizes)
        within_squares = (second - first**2 / sizes).sum(0)
        between_squares = (first**2 / sizes).sum(0) - first.sum(0) ** 2 / total
        within = within_squares / max(total - tasks, 1)
        if tasks < 2:
            return within, np.zeros(width)
        size = (total - (sizes**2).sum() / total) / (tasks - 1)
        return within, np.maximum(0, (between_squares / (tasks - 1) - within) / size)


def _note_labels(tasks: Tasks, codes: Integers, labels: pa.Array) -> None:
    encoded = labels.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    pairs, counts = np.unique(codes * len(names) + np.asarray(encoded.indices), return_counts=True)
    for pair, count in zip(pairs, counts, strict=True):
        tasks.labels[int(pair) // len(names), names[int(pair) % len(names)]] += int(count)


def _classes(spec: TableSettings, tasks: Tasks) -> tuple[str, ...]:
    """The labels that mean the same in every task, in order."""
    found = {label for _, label in tasks.labels}
    if len(found) < 2 or len(found) > MOST_CATEGORIES:
        raise UserError(
            f"generate.target: {spec.target_columns[0]} has {len(found)} different values: expected 2 to {MOST_CATEGORIES} classes"
            + (", or problem: regression" if len(found) > MOST_CATEGORIES else "")
        )
    try:
        return tuple(sorted(found, key=float))
    except ValueError:
        return tuple(sorted(found))


def _note_entities(entities: list[list[npt.NDArray[np.uint64]]], names: pa.Array, split: Integers) -> None:
    hashed = pd.util.hash_array(names.to_numpy(zero_copy_only=False).astype(object))
    for number, known in enumerate(entities):
        known.append(np.unique(hashed[split == number]))
        if len(known) > 64:
            known[:] = [np.unique(np.concatenate(known))]


def _shared(entities: Sequence[Sequence[npt.NDArray[np.uint64]]]) -> tuple[int, int]:
    """How many entities are in two splits, and how many there are."""
    _, counts = np.unique(np.concatenate([np.unique(np.concatenate(known)) for known in entities[:UNUSED]]), return_counts=True)
    return int((counts > 1).sum()), len(counts)


def _numeric(
    spec: TableSettings, roles: Roles, sums: Sums, medians: Numbers, rows: int, unused: dict[str, str]
) -> Iterable[Numeric]:
    for name, count, mean, deviation, median in zip(roles.numeric, sums.count, sums.mean, sums.deviation, medians, strict=True):
        if not count:
            unused[name] = "missing in all rows of the meta-train tasks"
        elif not deviation > 1e-12 * abs(mean) and (count == rows or not spec.missing.indicator):
            unused[name] = "the same in all rows of the meta-train tasks"
        else:
            fill = {"median": median, "mean": mean, "zero": 0.0}[spec.missing.numeric]
            scaled = spec.scale.x == "train"
            scale = float(deviation) if scaled and deviation > 0 else 1.0
            yield Numeric(name, float(fill), float(mean) if scaled else 0.0, scale, bool(spec.missing.indicator and count < rows))


def _categorical(
    spec: TableSettings, roles: Roles, counts: Mapping[str, Counter[str | None]], rows: int, unused: dict[str, str]
) -> Iterable[Categorical]:
    for name in roles.categorical:
        counter = counts[name]
        missing = counter.pop(None, 0)
        if not counter:
            unused[name] = "missing in all rows of the meta-train tasks"
        elif len(counter) == 1 and (not missing or spec.missing.categorical == "zero"):
            unused[name] = "the same in all rows of the meta-train tasks"
        elif name in roles.guessed and (len(counter) > GUESSED_CATEGORIES or 2 * len(counter) > rows):
            many = "a value of its own in each row" if len(counter) == rows else f"text of {len(counter):,} different values"
            unused[name] = f"{many}; list it under features.categorical to have it as categories"
        else:
            common = [value for value, _ in sorted(counter.items(), key=lambda one: (-one[1], str(one[0])))][:MOST_CATEGORIES]
            own = bool(missing) and spec.missing.categorical == "own_category"
            yield Categorical(name, tuple(sorted(map(str, common))), len(common) < len(counter), own)
