"""Small tables for tests: written to files, and read as `generate` and `train` do."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaopt_core.distributions.batch import Episode
from metaopt_core.distributions.contract import load, materialize
from metaopt_core.distributions.table import TableSpec
from metaopt_core.distributions.table.drawing import Table
from metaopt_core.spec.distribution import TaskShape

EPISODE = Episode(None, 3, 4)


def frame(tasks: int = 30, rows: int = 12, seed: int = 0) -> pd.DataFrame:
    """Tasks t00 …, y = slope · x + offset of each; `vendor` is one of three, `id` names the row."""
    random = np.random.default_rng(seed)
    names = np.repeat([f"t{number:02}" for number in range(tasks)], rows)
    x = random.normal(5, 2, tasks * rows)
    y = np.repeat(random.normal(0, 1, tasks), rows) * x + np.repeat(random.normal(100, 10, tasks), rows)
    vendor = random.choice(["acme", "bolt", "coil"], tasks * rows)
    return pd.DataFrame({"task": names, "x": x, "vendor": vendor, "id": [f"r{i}" for i in range(tasks * rows)], "y": y})


def spec(path: Path | str, **settings: Any) -> TableSpec:
    values = {"distribution": "table", "path": str(path), "task": "task", "target": "y"} | settings
    return TableSpec.model_validate(values)


def read(path: Path | str, folder: Path, seed: int = 0, **settings: Any) -> tuple[Table, TaskShape]:
    """What the later stages have of a table."""
    folder.mkdir()
    materialize(spec(path, **settings), seed, folder, folder)
    table, shape = load(folder, seed)
    assert isinstance(table, Table)
    return table, shape


def of_frame(table: pd.DataFrame, folder: Path, **settings: Any) -> tuple[Table, TaskShape]:
    folder.mkdir(exist_ok=True)
    table.to_parquet(folder / "data.parquet", index=False)
    return read(folder / "data.parquet", folder / "made", **settings)
