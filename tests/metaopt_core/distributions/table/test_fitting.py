"""What is fitted is fitted to the meta-train tasks alone, and what the tasks are doesn't depend on other tasks."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from metaopt_core.distributions.preparing import Categorical, Numeric, Preparation
from metaopt_core.distributions.table.drawing import Table
from tests.metaopt_core.distributions.table.tables import EPISODE, frame, of_frame, read


def split_of(table: Table) -> dict[str, str]:
    return {name: split.name for split in table.splits.values() for name in split.names}


def numeric(table: Table, name: str) -> Numeric:
    return next(one for one in table.preparation.numeric if one.column == name)


def categorical(table: Table, name: str) -> Categorical:
    return next(one for one in table.preparation.categorical if one.column == name)


def test_more_tasks_move_no_task_to_another_split(tmp_path: Path) -> None:
    few, many = (split_of(of_frame(frame(count), tmp_path / str(count))[0]) for count in (40, 60))
    assert few.items() <= many.items()
    other = split_of(of_frame(frame(40), tmp_path / "seed", seed=1)[0])
    assert few != other


def test_shares_are_those_of_the_spec(tmp_path: Path) -> None:
    table, _ = of_frame(frame(1000, 2), tmp_path, split={"train": 0.5, "validation": 0.2, "test": 0.3})
    counts = [len(split.names) for split in table.splits.values()]
    assert np.allclose(counts, [500, 200, 300], atol=50)


def test_groups_stay_together(tmp_path: Path) -> None:
    rows = frame(60)
    rows["family"] = "f" + (rows.task.str[1:].astype(int) // 4).astype(str)
    table, _ = of_frame(rows, tmp_path, group="family", seed=3)
    splits = split_of(table)
    family = rows.drop_duplicates("task").set_index("task").family
    assert all(len({splits[name] for name in names}) == 1 for names in family.groupby(family).groups.values())
    assert {*splits.values()} == {"train", "validation", "test"}


def test_splits_come_from_a_column_or_from_files(tmp_path: Path) -> None:
    rows = frame(9)
    wanted = {f"t0{number}": ("train", "validation", "test")[number % 3] for number in range(9)}
    rows["part"] = rows.task.map(wanted)
    assert split_of(of_frame(rows, tmp_path / "column", split={"column": "part"})[0]) == wanted
    files = {split: str(tmp_path / f"{split}.txt") for split in ("train", "validation", "test")}
    for split, path in files.items():
        Path(path).write_text("\n".join(name for name, of in wanted.items() if of == split and name != "t08") + "\n")
    table, _ = of_frame(rows.drop(columns="part"), tmp_path / "files", split=files)
    assert split_of(table) == {name: split for name, split in wanted.items() if name != "t08"}
    assert table.told["warnings"] == ["1 tasks are in no split, or have no row with a target"]


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Table, pd.DataFrame]:
    """Held-out tasks have other numbers and another vendor than the meta-train tasks."""
    folder = tmp_path_factory.mktemp("gappy")
    rows = frame(40)
    splits = split_of(of_frame(rows, folder / "first")[0])
    trained = rows.task.map(splits) == "train"
    rows.loc[~trained, "x"] = 1e6
    rows.loc[~trained, "vendor"] = "dent"
    rows["half"] = rows.x.where(rows.index % 2 == 0)
    rows["late"] = rows.x.where(~trained)
    rows["flat"] = 3.0
    rows["room"] = [(None, "a", "b")[number % 3] for number in rows.index]
    rows["day"] = pd.Timestamp("2026-01-01")
    rows.loc[5, "y"] = np.nan
    return of_frame(rows, folder / "second")[0], rows[trained]


def test_numbers_are_in_units_of_the_meta_train_tasks(gappy: tuple[Table, pd.DataFrame]) -> None:
    table, rows = gappy
    kept = rows[rows.y.notna()]
    x, half = numeric(table, "x"), numeric(table, "half")
    assert [x.mean, x.scale, half.fill] == pytest.approx([kept.x.mean(), kept.x.std(ddof=0), kept.half.median()])
    assert (x.indicator, half.indicator) == (False, True)
    columns = table.feature_columns
    trained = table.rows("train").x.numpy()
    assert trained[:, columns["x"]].mean() == pytest.approx(0, abs=1e-4)
    value, missing = trained[:, columns["half"]].T
    assert set(missing) == {0, 1}
    assert np.allclose(value[missing == 1], (half.fill - half.mean) / half.scale, atol=1e-5)


def test_columns_that_tell_nothing_are_left_out_and_listed(gappy: tuple[Table, pd.DataFrame]) -> None:
    table, _ = gappy
    assert table.told["columns_left_out"] == {
        "day": "a column of dates under features",
        "late": "missing in all rows of the meta-train tasks",
        "flat": "the same in all rows of the meta-train tasks",
        "id": "a value of its own in each row; list it under features.categorical to have it as categories",
    }
    assert table.told["rows_without_target"] == 1


def test_categories_are_those_that_training_has_seen(gappy: tuple[Table, pd.DataFrame]) -> None:
    table, _ = gappy
    vendor, room = categorical(table, "vendor"), categorical(table, "room")
    assert vendor.names == ["vendor is acme", "vendor is bolt", "vendor is coil"]
    assert room.names == ["room is a", "room is b", "room is missing"]
    trained, held_out = table.rows("train").x.numpy(), table.rows("validation").x.numpy()
    assert (trained[:, table.feature_columns["vendor"]].sum(1) == 1).all()
    assert (held_out[:, table.feature_columns["vendor"]] == 0).all()
    assert (held_out[:, table.feature_columns["room"]].sum(1) == 1).all()
    assert "rows have a value of vendor that no meta-train task has" in table.told["warnings"][0]


def test_of_too_many_categories_the_rest_are_one(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = frame(60, 40)
    rows["code"] = [f"c{value}" for value in np.minimum(random.geometric(0.01, len(rows)), 2000)]
    rows["code"] = np.where(random.random(len(rows)) < 0.5, rows.code, rows.id)
    table, _ = of_frame(rows, tmp_path, features={"categorical": ["code"]})
    code = categorical(table, "code")
    assert len(code.categories) == 500
    assert code.names[-1] == "code is another"
    assert (table.rows("train").x.numpy()[:, table.feature_columns["code"]].sum(1) == 1).all()


def test_choices_of_missing_and_scale(tmp_path: Path) -> None:
    rows = frame()
    rows.loc[::4, "x"] = np.nan
    rows.loc[::3, "vendor"] = None
    settings: dict[str, Any] = {
        "missing": {"numeric": "mean", "categorical": "zero", "indicator": False},
        "scale": {"x": "none", "y": "none"},
    }
    table, shape = of_frame(rows, tmp_path, **settings)
    assert table.preparation.names == ["x", "vendor is acme", "vendor is bolt", "vendor is coil"]
    x = numeric(table, "x")
    assert (x.mean, x.scale) == (0, 1)
    assert (shape.target_means, shape.target_scales) == ((0.0,), (1.0,))
    assert table.train(EPISODE, 0, 2).origin is None


def test_several_columns_name_a_task_and_several_are_predicted(tmp_path: Path) -> None:
    rows = frame(40)
    rows["plate"], rows["z"] = rows.task.str[1:].astype(int), rows.y * 2
    table, shape = of_frame(rows, tmp_path, task=["task", "plate"], target=["y", "z"])
    assert "t07 / 7" in split_of(table)
    assert (shape.outputs, shape.target_names) == (2, ("y", "z"))
    y = table.rows("train").y.numpy()
    assert np.allclose(y[:, 0], y[:, 1], atol=1e-5)


def test_entities_in_two_splits_are_counted(tmp_path: Path) -> None:
    rows = frame(40)
    rows["patient"] = [f"p{index % 100}" if index % 2 else f"q{index}" for index in range(len(rows))]
    table, _ = of_frame(rows, tmp_path, entity="patient")
    in_splits = rows.assign(split=rows.task.map(split_of(table))).groupby("patient").split.nunique()
    shared = int((in_splits > 1).sum())
    assert 20 < shared < 50
    assert table.told["warnings"] == [
        f"{shared} of {len(in_splits)} values of patient are in two splits: test tasks may be known from training"
    ]
    assert table.preparation.names == ["x", "vendor is acme", "vendor is bolt", "vendor is coil"]


def test_a_preparation_is_json(gappy: tuple[Table, pd.DataFrame]) -> None:
    import json

    table, _ = gappy
    assert Preparation.from_json(json.loads(json.dumps(table.preparation.as_json()))) == table.preparation


@pytest.mark.parametrize("block", [100, 1 << 22])
def test_the_same_rows_are_the_same_table_whatever_the_file(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metaopt_core.distributions.table import source

    monkeypatch.setattr(source, "_ROWS", 7)
    monkeypatch.setattr(source, "_BLOCK", max(block, 300))
    rows = frame().round(3)
    rows.to_csv(tmp_path / "data.csv", index=False)
    rows.to_csv(tmp_path / "data.csv.gz", index=False)
    rows.to_csv(tmp_path / "data.tsv", index=False, sep="\t")
    rows.to_parquet(tmp_path / "data.parquet", index=False)
    found = [read(path, tmp_path / f"{path.name}.made")[0] for path in sorted(tmp_path.glob("data.*"))]
    for one in found[1:]:
        assert one.preparation.names == found[0].preparation.names
        assert np.allclose(one.x, found[0].x, atol=1e-5)
        assert np.allclose(one.y, found[0].y, atol=1e-5)
    assert np.allclose(found[0].preparation.means[0], rows[rows.task.isin(found[0].splits["train"].names)].y.mean())
