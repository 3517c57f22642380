"""Make assays.csv.gz, a small simulated table: 140 assays, each with the measured activity of 100 of the same 400 compounds.

    python examples/assays.py

Nothing in it was measured. Activity follows from four properties that all assays share and that are nonlinear in a compound's
descriptors; how much each of them matters differs from assay to assay. So assays have something in common that a model of one assay
can't see, which is what meta-learning is for. Seven labs measure with offsets of their own, some entries are missing, and values
have noise.
"""

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

ASSAYS, COMPOUNDS, MEASURED = 140, 400, 100
DESCRIPTORS = ("weight", "polarity", "charge", "rings", "bonds", "surface", "volume", "acidity")


def properties(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Standardized descriptors [compounds, 8] → four properties that activity follows from [compounds, 4]."""
    return np.stack(
        [
            np.sin(1.5 * x[:, 0] + x[:, 1]),
            np.tanh(2 * x[:, 2] * x[:, 3]),
            np.exp(-np.square(x[:, 4] - 0.5 * x[:, 5])) - 0.5,
            np.abs(x[:, 6]) - np.abs(x[:, 7]),
        ],
        1,
    )


def table(seed: int = 0) -> pd.DataFrame:
    """A row for each measurement."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(COMPOUNDS, len(DESCRIPTORS)))
    shared = properties(x)
    shared = (shared - shared.mean(0)) / shared.std(0)
    labs = np.array(["Basel", "Delft", "Jena", "Lund", "Porto", "Turin", "York"])
    lab_offsets = random.normal(0, 0.3, len(labs))
    parts = []
    for assay in range(ASSAYS):
        chosen, lab = random.permutation(COMPOUNDS)[:MEASURED], random.integers(len(labs))
        slopes = random.normal(0, 0.7, shared.shape[1])
        activity = 6 + random.normal(0, 0.6) + lab_offsets[lab] + shared[chosen] @ slopes + random.normal(0, 0.4, MEASURED)
        measured = {"assay": f"A{assay:03}", "compound": [f"C{compound:03}" for compound in chosen], "lab": labs[lab]}
        descriptors = dict(zip(DESCRIPTORS, x[chosen].round(2).T, strict=True))
        parts.append(pd.DataFrame({**measured, **descriptors, "activity": activity.round(2)}))
    rows = pd.concat(parts, ignore_index=True)
    rows.loc[random.random(len(rows)) < 0.03, "acidity"] = np.nan
    rows.loc[random.random(len(rows)) < 0.02, "lab"] = None
    return rows


if __name__ == "__main__":
    file = Path(__file__).with_name("assays.csv.gz")
    file.write_bytes(gzip.compress(table().to_csv(index=False).encode(), mtime=0))
    print(f"{file}: {ASSAYS} assays with {MEASURED} compounds each")
