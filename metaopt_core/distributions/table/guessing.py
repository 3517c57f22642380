"""A pipeline for a table of which only the file is known: which column names the task, and which is to be predicted.

What is guessed is said, and can be said instead.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from metaopt_core.distributions.table.fitting import GUESSED_CATEGORIES
from metaopt_core.distributions.table.settings import FILE_KINDS, TableSettings
from metaopt_core.distributions.table.source import columns, read, require
from metaopt_core.errors import UserError

_READ = 200_000  # rows that are looked at
_TASK_WORDS = (
    "task",
    "group",
    "assay",
    "patient",
    "subject",
    "school",
    "site",
    "device",
    "machine",
    "customer",
    "product",
    "kinase",
)
_TARGET_WORDS = ("target", "label", "y", "activity", "score", "value", "outcome", "result", "response", "class")
_FEW_CLASSES = 10
_SHOTS = (5, 10, 20, 50)


@dataclass(frozen=True)
class Guess:
    """What a pipeline says of a table.

    said: what was guessed, in sentences. classes: of a classification. rows: those of a middling task (then: of each class).
    """

    name: str
    task: tuple[str, ...]
    target: tuple[str, ...]
    classes: int | None
    drop: tuple[str, ...]
    rows: int
    said: tuple[str, ...]


def guess(file: Path, task: Sequence[str], target: Sequence[str], name: str | None = None) -> Guess:
    """Raises UserError for a file that can't be read, columns that aren't there, and where nothing can be guessed."""
    if not file.name.lower().endswith(FILE_KINDS):
        raise UserError(f"{file}: an unknown type of file: expected {', '.join(FILE_KINDS[:-1])} or {FILE_KINDS[-1]}")
    settings = TableSettings(distribution="table", path=str(file), task="-", target="-")
    kinds = columns(settings)
    require(dict.fromkeys(task, "--task") | dict.fromkeys(target, "--target"), list(kinds), str(file))
    parts, seen = [], 0
    for batch in read(settings, {column: "text" for column, kind in kinds.items() if kind is not None}):
        parts.append(pd.DataFrame({column: array.to_pandas() for column, array in batch.columns.items()}))
        seen += batch.rows
        if seen >= _READ:
            break
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if table.empty:
        raise UserError(f"{file}: there is no row: expected some below the names of the columns")
    numeric = [column for column, kind in kinds.items() if kind == "number"]
    said = []
    if not task:
        task = (_task(file, table, [column for column in kinds if column in table and column not in target], numeric),)
        said.append(f"task: {task[0]}, a guess: it has {table[task[0]].nunique():,} values; --task says another")
    if not target:
        target = (_target(file, [column for column in kinds if column in table and column not in task], numeric),)
        said.append(f"target: {target[0]}, a guess by its name and place; --target says another")
    classes = _classes(table, target, numeric)
    by = [table[column] for column in task] + ([table[target[0]]] if classes else [])
    rows = int(table.groupby(by).size().median())
    free = [column for column in kinds if column in table and column not in (*task, *target, *numeric)]
    ids = [column for column in free if table[column].nunique() > min(GUESSED_CATEGORIES, len(table) / 2)]
    if classes:
        said.append(f"problem: classification, since {target[0]} has {classes} values")
    if ids:
        said.append(f"dropped: {', '.join(ids)}, too many different values to be categories")
    return Guess(name or _name(file), tuple(task), tuple(target), classes, tuple(ids), rows, tuple(said))


def _task(file: Path, table: pd.DataFrame, free: Sequence[str], numeric: Sequence[str]) -> str:
    """A column whose values are in several rows each; best one that is called so, then text, then whole numbers."""
    fitting = []
    for place, column in enumerate(free):
        sizes = table[column].value_counts()
        whole = column not in numeric or bool(table[column].dropna().str.fullmatch(r"[+-]?\d+(\.0*)?").all())
        if len(sizes) >= 3 and whole and sizes.median() >= 5:
            word = next((rank for rank, word in enumerate(_TASK_WORDS) if word in column.lower()), len(_TASK_WORDS))
            fitting.append((word, column in numeric, -min(len(sizes), 1000), place, column))
    if not fitting:
        raise UserError(
            f"{file}: no column looks like the names of tasks, each of them in several rows: expected --task COLUMN, one of "
            f"{', '.join(free[:20])}"
        )
    return min(fitting)[-1]


def _target(file: Path, free: Sequence[str], numeric: Sequence[str]) -> str:
    """A column that is called so, or else the last numeric one."""

    def is_called(column: str, word: str) -> bool:
        return column.lower() == word or (len(word) > 1 and word in column.lower())

    named = [column for word in _TARGET_WORDS for column in free if is_called(column, word)]
    if named:
        return named[0]
    numbers = [column for column in free if column in numeric]
    if not numbers:
        raise UserError(f"{file}: there is no numeric column to predict: expected --target COLUMN, one of {', '.join(free[:20])}")
    return numbers[-1]


def _classes(table: pd.DataFrame, target: Sequence[str], numeric: Sequence[str]) -> int | None:
    """The number of classes, if the target has few values that are text or whole numbers; none for a regression."""
    values = table[target[0]].dropna()
    if len(target) > 1 or (target[0] in numeric and values.nunique() > 2):
        return None
    if values.nunique() > _FEW_CLASSES:
        raise UserError(f"--target: {target[0]} is text of {values.nunique()} values: expected a numeric column, or few classes")
    return int(values.nunique())


def _name(file: Path) -> str:
    name = re.sub(r"[^a-z0-9._-]+", "-", file.name.lower().partition(".")[0]).strip("-._")
    return name or "table"


def pipelines_text(guess: Guess, file: Path, beside: Path) -> str:
    """The pipelines file, with comments. file: the table; beside: where the text will be."""
    queries = max(1, min(32, guess.rows // 3))
    shots = [number for number in _SHOTS if number + queries <= guess.rows] or [max(1, guess.rows - queries)]
    low, high = shots[0], shots[-1]
    trained = f"{high} # support rows"
    if high > low:
        trained = f"{{low: {low}, high: {high}}} # each task draws its own number of support rows"
    path = os.path.relpath(file.absolute(), beside.absolute().parent)
    of_class = " of each class" if guess.classes else ""
    meaning = "labels mean the same in every task; or labels: per_task"
    classification = f"      problem: classification # {meaning}\n" if guess.classes else ""
    ways = f"      ways: {guess.classes} # classes\n" if guess.classes else ""
    return f"""\
# What to meta-learn from {file.name}. `metaopt data check {guess.name}` looks at the data, `metaopt run {guess.name}` runs it, and
# `metaopt show {guess.name}` prints it with all defaults filled in.

pipelines:
  {_flow(guess.name)}:
    generate:
      distribution: table
      path: {_flow(path)}
      task: {_flow(guess.task)} # the column that says to which task a row belongs
      target: {_flow(guess.target)} # the column to predict
{classification}      features:
        drop: {_flow(list(guess.drop))} # all other columns are features: numbers as they are, text as categories
      # group: COLUMN            # tasks that belong together stay in one split
      # time: COLUMN             # support rows come before query rows
      split: {{train: 0.7, validation: 0.15, test: 0.15}} # shares of the tasks, by a hash of their names
    train:
      algorithm: meta-sgd
      model: {{name: mlp, hidden: [64, 64]}}
      iterations: 1000
{ways}      shots: {trained}{of_class}
      queries: {queries} # rows{of_class} that judge the adapted model
      inner: {{lr: 0.05, steps: 3}}
      outer: {{lr: 0.003, schedule: cosine, clip_norm: 1.0}}
      validation: {{every: 100}}
    evaluate:
      steps: 3
      shots: {_flow(shots)} # every method with each number of support rows
      repeats: 5 # each task several times, with other support rows
      adaptation: safe # of the logged model: step sizes halve where a step would not lower the support loss
"""


def _flow(value: object) -> str:
    """A value as YAML in one line."""
    plain = value[0] if isinstance(value, tuple) and len(value) == 1 else list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("...").strip()
