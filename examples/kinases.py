"""Download the kinase data of Davis et al. 2011 and make davis.parquet of them: how strongly 68 drugs bind to each of 382 kinases.

    python examples/kinases.py

Source: four text files of github.com/hkmztrk/DeepDTA, data/davis. They state no licence, so they are downloaded and no part of this
project. A task is a kinase, a row one of its measurements: 68 similarities of the drug to all drugs by their fingerprints, and
pKd = 9 − log10 of the dissociation constant in nM. A value of 5 means that none was measured; kinases with fewer than 10 others are
left out.
"""

import io
import json
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd

URL = "https://raw.githubusercontent.com/hkmztrk/DeepDTA/master/data/davis"
AFFINITIES = "drug-target_interaction_affinities_Kd__Davis_et_al.2011v1.txt"
SIMILARITIES = "drug-drug_similarities_2D.txt"
LEAST = 10  # values above the detection limit that a kinase has to have


def read(name: str, source: str = URL) -> str:
    """One of the files, from the web or from a folder."""
    if "://" not in source:
        return (Path(source) / name).read_text()
    with urllib.request.urlopen(f"{source}/{name}", timeout=60) as answer:  # noqa: S310 - an https address, or as the caller says
        return str(answer.read().decode())


def table(source: str = URL) -> pd.DataFrame:
    """A row for each kinase and drug."""
    drugs, kinases = (list(json.loads(read(name, source))) for name in ("ligands_can.txt", "proteins.txt"))
    affinity = 9 - np.log10(np.loadtxt(io.StringIO(read(AFFINITIES, source))))
    similarity = np.loadtxt(io.StringIO(read(SIMILARITIES, source)))
    names = [f"similarity_{number:02}" for number in range(len(drugs))]
    parts = [
        pd.DataFrame({"kinase": kinase, "drug": drugs, **dict(zip(names, similarity.T, strict=True)), "pKd": column.round(4)})
        for kinase, column in zip(kinases, affinity.T, strict=True)
        if (column > 5).sum() >= LEAST
    ]
    return pd.concat(parts, ignore_index=True)


if __name__ == "__main__":
    made, file = table(*sys.argv[1:]), Path(__file__).with_name("davis.parquet")
    made.to_parquet(file, index=False)
    print(f"{file}: {made.kinase.nunique()} kinases, {len(made):,} rows")
