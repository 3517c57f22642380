"""How much memory and time a large table takes: `python -m benchmarks.large_table [ROWS] [COLUMNS]`, by default 10 million of 50.

It writes a Parquet file of random numbers, a part at a time, then lets one process make a distribution of it, as `generate` does,
and another one draw training tasks, as `train` does. Of each it prints the seconds and the largest resident memory. Pages of mapped
files that the system keeps count there, too.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from metaopt_core.distributions.batch import Episode
from metaopt_core.distributions.contract import load, materialize
from metaopt_core.distributions.table import TableSpec

ROWS, COLUMNS, TASKS, TOGETHER = 10_000_000, 50, 20_000, 500_000
DRAWN = 10_000  # tasks


def write(path: Path, rows: int, columns: int) -> None:
    """A table of `columns` numeric features, a category, a task and a target."""
    random = np.random.default_rng(0)
    names = np.array([f"t{number:05}" for number in range(TASKS)])
    writer = None
    for start in range(0, rows, TOGETHER):
        count = min(TOGETHER, rows - start)
        x = random.standard_normal((columns, count), dtype=np.float32)
        made = pa.table(
            {
                "task": pa.array(names[random.integers(0, TASKS, count)]),
                **{f"x{column}": values for column, values in enumerate(x)},
                "kind": pa.array(np.array(["a", "b", "c"])[random.integers(0, 3, count)]),
                "y": x[0] + 0.1 * random.standard_normal(count, dtype=np.float32),
            }
        )
        writer = writer or pyarrow.parquet.ParquetWriter(path, made.schema, compression="none")
        writer.write_table(made)
    assert writer is not None
    writer.close()


def generate(path: Path, folder: Path) -> None:
    materialize(TableSpec(distribution="table", path=str(path), task="task", target="y"), 0, folder, folder)


def draw(path: Path, folder: Path) -> None:  # noqa: ARG001 - the two are called alike
    distribution, _ = load(folder, 0)
    for start in range(0, DRAWN, 1000):
        distribution.train(Episode(None, 50, 32, fewest=5), start, 1000)


STEPS = {"generate": generate, "draw": draw}


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in STEPS:
        started = time.monotonic()
        STEPS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": round(time.monotonic() - started, 1), "GB": round(peak, 2)}))
        return
    rows, columns = (int(sys.argv[place]) if len(sys.argv) > place else default for place, default in ((1, ROWS), (2, COLUMNS)))
    with tempfile.TemporaryDirectory() as name:
        path, folder = Path(name) / "large.parquet", Path(name) / "made"
        folder.mkdir()
        write(path, rows, columns)
        print(f"{rows:,} rows of {columns} numbers in {TASKS:,} tasks, {path.stat().st_size / 2**30:.1f} GB")
        for step in STEPS:
            command = [sys.executable, "-m", "benchmarks.large_table", step, str(path), str(folder)]
            print(step, subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


if __name__ == "__main__":
    main()
