"""The scripts that make the tables of the shipped pipelines."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from metaopt_core.errors import UserError
from metaopt_core.spec.loader import load

ROOT = Path(__file__).parents[2]


def script(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_simulated_table_is_what_its_script_makes() -> None:
    committed = pd.read_csv(ROOT / "examples" / "assays.csv.gz")
    pd.testing.assert_frame_equal(committed, script("assays").table(), check_dtype=False, check_exact=False)
    assert (committed.groupby("assay").size() == 100).all()


def test_kinases_with_too_few_measured_values_are_left_out(tmp_path: Path) -> None:
    kinases = script("kinases")
    (tmp_path / "ligands_can.txt").write_text(json.dumps({f"d{number}": "C" for number in range(12)}))
    (tmp_path / "proteins.txt").write_text(json.dumps({"AAK1": "M", "ABL1": "M"}))
    affinities = np.full((12, 2), 10000)
    affinities[:11, 0] = 100
    affinities[:9, 1] = 100
    np.savetxt(tmp_path / kinases.AFFINITIES, affinities, fmt="%d")
    np.savetxt(tmp_path / kinases.SIMILARITIES, np.eye(12))
    table = kinases.table(str(tmp_path))
    assert table.pKd.tolist() == [7.0] * 11 + [5.0]
    assert {*table.kinase} == {"AAK1"}
    assert table.filter(like="similarity_").to_numpy().tolist() == np.eye(12).tolist()


def test_a_row_of_the_schools_is_a_pupil(tmp_path: Path) -> None:
    x, y = np.empty((1, 2), dtype=object), np.empty((2, 1), dtype=object)
    x[0, 0], x[0, 1] = np.ones((3, 2)), np.zeros((1, 2))
    y[0, 0], y[1, 0] = np.array([[5], [6], [7]]), np.array([[8]])
    savemat(tmp_path / "school.mat", {"X": x, "Y": y})
    table = script("schools").table(str(tmp_path / "school.mat"))
    assert table.columns.tolist() == ["school", "x0", "x1", "score"]
    assert table[["school", "score"]].to_numpy().tolist() == [[0, 5], [0, 6], [0, 7], [1, 8]]


@pytest.mark.parametrize("name", ["kinases", "schools"])
def test_without_its_file_a_pipeline_says_which_command_to_give(name: str) -> None:
    generate = load(ROOT / "pipelines.yaml")[name].generate
    away = generate.model_copy(update={"path": "/nowhere/at/all.csv"})
    with pytest.raises(UserError, match=rf"there is no file /nowhere/at/all.csv: get it first: python examples/{name}.py"):
        away.data()
    with pytest.raises(UserError, match="METAOPT_DATA: '/nowhere' is not a folder"):
        away.located({"METAOPT_DATA": "/nowhere"})


def test_a_file_is_looked_for_in_the_folders_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("a,b\n")
    generate = load(ROOT / "pipelines.yaml")["kinases"].generate.model_copy(update={"path": "/nowhere/at/all.csv"})
    assert generate.located({"METAOPT_DATA": f"{ROOT}:{tmp_path}"}).path == str(tmp_path / "all.csv")  # type: ignore[attr-defined]
    assert generate.located({"METAOPT_DATA": f"{ROOT}"}) == generate
