"""Download exam scores of pupils in 139 London schools (ILEA, 1985 to 1987) and make school.csv of them.

    python examples/schools.py

Source: data/school.mat of github.com/jiayuzhou/MALSAR, which states no licence for it, so it is downloaded and no part of this
project. A task is a school, a row a pupil: 28 features (year, gender, ethnic group, reading ability, and properties of the school),
and the exam score.
"""

import io
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import loadmat

URL = "https://raw.githubusercontent.com/jiayuzhou/MALSAR/master/data/school.mat"


def read(source: str = URL) -> bytes:
    """The file, from the web or from a path."""
    if "://" not in source:
        return Path(source).read_bytes()
    with urllib.request.urlopen(source, timeout=60) as answer:  # noqa: S310 - an https address, or as the caller says
        return bytes(answer.read())


def table(source: str = URL) -> pd.DataFrame:
    """A row for each pupil."""
    held = loadmat(io.BytesIO(read(source)))
    parts = []
    for school, (x, y) in enumerate(zip(held["X"].ravel(), held["Y"].ravel(), strict=True)):
        features = {f"x{number}": column for number, column in enumerate(np.asarray(x).T)}
        parts.append(pd.DataFrame({"school": school, **features, "score": np.asarray(y).ravel()}))
    return pd.concat(parts, ignore_index=True).astype({"school": int})


if __name__ == "__main__":
    made, file = table(*sys.argv[1:]), Path(__file__).with_name("school.csv")
    made.to_csv(file, index=False)
    print(f"{file}: {made.school.nunique()} schools, {len(made):,} pupils")
