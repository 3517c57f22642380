"""Data that can't be used: one message for each, which says where it is and what would help, and nothing is left behind."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaopt_core.distributions.batch import Episode
from metaopt_core.distributions.contract import load, materialize
from metaopt_core.errors import UserError
from tests.metaopt_core.distributions.table.tables import frame, spec

Settings = dict[str, Any]
HEADER = "task,x,z,y\n"
ROWS = "".join(f"t{number % 20:02},{number},{number % 7},{number % 11}\n" for number in range(200))


def written(name: str, text: str | bytes) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        path = folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def csv(text: str) -> Callable[[Path], str]:
    return written("data.csv", text)


def parquet(damage: Callable[[bytes], bytes] = lambda whole: whole, **columns: Any) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        path = folder / "data.parquet"
        frame().assign(**columns).to_parquet(path, index=False)
        path.write_bytes(damage(path.read_bytes()))
        return str(path)

    return write


def several(*texts: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        for number, text in enumerate(texts):
            (folder / f"plate{number}.csv").write_text(text)
        return str(folder / "plate*.csv")

    return write


def split_files(folder: Path, **names: str) -> Settings:
    lists = {"train": "t00\nt01\n", "validation": "t02\n", "test": "t03\n"} | names
    for split, text in lists.items():
        (folder / f"{split}.txt").write_text(text)
    return {split: str(folder / f"{split}.txt") for split in lists}


GOOD = csv(HEADER + ROWS)
LISTED: dict[str, tuple[Callable[[Path], str], Settings, str]] = {
    "no file": (lambda folder: str(folder / "data.csv"), {}, r"generate.path: there is no file .*data.csv: correct the path"),
    "no file of a pattern": (lambda folder: str(folder / "*.csv"), {}, r"there is no file .*\*.csv"),
    "empty file": (csv(""), {}, r"data.csv: the file is empty"),
    "no rows": (csv(HEADER), {}, r"data.csv: there is no row: expected some below the names of the columns"),
    "no rows in Parquet": (
        lambda folder: (frame().head(0).to_parquet(folder / "data.parquet"), str(folder / "data.parquet"))[1],
        {},
        r"data.parquet: there is no row",
    ),
    "missing task column": (GOOD, {"task": "tsak"}, r"generate.task: .*data.csv has no column tsak, did you mean task\?"),
    "missing target": (GOOD, {"target": "activity"}, r"generate.target: .* has no column activity, expected one of task, x, z, y"),
    "missing feature": (GOOD, {"features": {"numeric": ["X"]}}, r"generate.features.numeric: .* no column X, did you mean x\?"),
    "missing group": (GOOD, {"group": "family"}, r"generate.group: .* has no column family"),
    "column twice": (csv("task,x,x,y\n" + ROWS), {}, r"the column x is there twice"),
    "another column in another file": (
        several(HEADER + ROWS, "task,x,y\nt01,1,2\n"),
        {},
        r"plate1.csv: there is no column z, which",
    ),
    "broken line": (
        csv(HEADER + ROWS + "t01,1,2\n\nt02,1,2,3,4\n"),
        {},
        r"lines 202, 204: 3 values, but the header has 4",
    ),
    "target is text": (
        csv(HEADER + ROWS + "t01,1,2,high\n" * 12),
        {},
        r"data.csv: lines 202, 203, 204, 205, 206, 207, 208, 209, 210, 211 and 2 more: y is 'high': expected numbers",
    ),
    "target is text from the start": (
        csv(HEADER + "t01,1,2,high\n" + ROWS),
        {},
        r"line 2: y is 'high': expected numbers",
    ),
    "feature is text further down": (
        csv(HEADER + ROWS + "t01,?,2,3\n"),
        {"features": {"numeric": ["x"]}},
        r"line 202: x is '\?': expected numbers; a column of categories belongs in features.categorical",
    ),
    "infinite feature": (csv(HEADER + ROWS + "t01,inf,2,3\n"), {}, r"data.csv: line 202: x is infinite: expected a finite number"),
    "infinite target": (parquet(y=[float("inf")] + [1.0] * 359), {}, r"data.parquet: row 1: y is infinite"),
    "nameless task": (
        csv(HEADER + ROWS + ",1,2,3\n,1,2,4\n"),
        {},
        r"lines 202, 203: task is missing: expected the task",
    ),
    "no target anywhere": (csv("task,x,y\n" + "t01,1,\nt02,2,\n"), {}, r"generate.target: no row of .* has a value of y"),
    "target that never varies": (
        csv("task,x,y\n" + "".join(f"t{number % 20:02},{number},5\n" for number in range(200))),
        {},
        r"y is the same in all rows of the meta-train tasks",
    ),
    "no features": (
        csv("task,y\nt01,1\nt02,2\n"),
        {},
        r"has no column that could be one: expected numbers or categories",
    ),
    "features that never vary": (
        csv("task,x,y\n" + "".join(f"t{number % 20:02},1,{number}\n" for number in range(200))),
        {},
        r"none of .*data.csv's columns tells anything \(x: the same in all rows",
    ),
    "too few tasks": (csv(HEADER + "t01,1,2,3\nt01,2,3,4\nt02,3,4,5\n"), {}, r"too few tasks: .* has 2, which leaves . for train"),
    "task in two groups": (
        parquet(family=["a"] * 5 + ["b"] * 355),
        {"group": "family"},
        r"generate.group: t00 has '[ab]' and '[ab]' in family .*: expected the same in all rows of a task",
    ),
    "task in two splits": (
        parquet(part=["train"] * 100 + ["test"] * 260),
        {"split": {"column": "part"}},
        r"generate.split.column: t08 has 'test' and 'train' in part",
    ),
    "unknown split": (
        parquet(part=["training"] * 360),
        {"split": {"column": "part"}},
        r"part is 'training' for t00: expected",
    ),
    "time is missing": (parquet(when=[None] + [1.0] * 359), {"time": "when"}, r"data.parquet: row 1: when is missing"),
    "time is text": (
        parquet(when=["noon"] * 360),
        {"time": "when"},
        r"when is 'noon': expected numbers, dates or times",
    ),
    "Parquet cut short": (parquet(lambda whole: whole[: len(whole) // 2]), {}, r"data.parquet: not a whole Parquet file"),
    "not Parquet": (written("data.parquet", HEADER + ROWS), {}, r"data.parquet: not a whole Parquet file"),
    "gzip cut short": (
        written("data.csv.gz", gzip.compress((HEADER + ROWS).encode())[:-20]),
        {},
        r"gz: can't be unpacked",
    ),
    "not gzip": (written("data.csv.gz", HEADER + ROWS), {}, r"gz: can't be unpacked"),
    "not UTF-8": (written("data.csv", (HEADER + ROWS).encode() + b"t\xff\xfe,1,2,3\n"), {}, r"data.csv: "),
    "one class": (
        csv("task,x,y\n" + "".join(f"t{number % 20:02},{number},yes\n" for number in range(200))),
        {"problem": "classification"},
        r"generate.target: y has 1 different values: expected 2 to 500 classes",
    ),
}


def refused(folder: Path, write: Callable[[Path], str], settings: Settings) -> str:
    """What is said of a table."""
    made = folder / "made"
    made.mkdir()
    with pytest.raises(UserError) as caught:
        materialize(spec(write(folder), **settings), 0, folder, made)
    return str(caught.value)


@pytest.mark.parametrize(("write", "settings", "says"), LISTED.values(), ids=LISTED)
def test_data_that_cannot_be_used_are_named(write: Callable[[Path], str], settings: Settings, says: str, tmp_path: Path) -> None:
    message = refused(tmp_path, write, settings)
    assert re.search(says, message), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"test": "t03\nt77\n"}, r"generate.split: .* has no task t77: expected the names of its tasks, as in t00"),
        ({"test": "t01\n"}, r"generate.split.test: .*test.txt names t01, and so does another split's file"),
        ({"test": "\n"}, r"too few tasks: .*0 for test"),
    ],
)
def test_files_of_task_names_are_checked(names: dict[str, str], says: str, tmp_path: Path) -> None:
    assert re.search(says, refused(tmp_path, GOOD, {"split": split_files(tmp_path, **names)}))


def test_a_class_that_a_task_lacks_is_named(tmp_path: Path) -> None:
    rows = frame(20)
    rows["y"] = ["yes" if number % 2 else "no" for number in rows.index]
    rows.loc[rows.task == "t04", "y"] = "yes"
    rows.to_parquet(tmp_path / "data.parquet")
    strict = spec(tmp_path / "data.parquet", problem="classification", small_tasks="error", features={"categorical": []})
    materialize(strict, 0, tmp_path, tmp_path)
    table = load(tmp_path, 0)[0]
    splits = ["train", "validation", "test"]
    said = []
    for split in splits:
        try:
            if split == "train":
                table.train(Episode(2, 2, 2), 0, 1)
            else:
                table.enough(split, Episode(2, 2, 2))  # type: ignore[arg-type]
        except UserError as error:
            said.append(str(error))
    assert len(said) == 1
    assert "t04 (0)" in said[0]


@pytest.mark.parametrize(
    ("url", "query", "says"),
    [
        (
            "sqlite:////nowhere/at/all.db",
            "select 1",
            r"generate.url: the database doesn't answer, or .* \(unable to open",
        ),
        ("sqlite://", "select * from measured", r"refuses the query \(no such table: measured\)"),
        ("sqlite://", "select 1 as x where 1 = 0", r"generate.query: the database gives no row"),
        ("nosuch://host/lab", "select 1", r"generate.url: the database doesn't answer"),
    ],
)
def test_a_database_that_does_not_answer(url: str, query: str, says: str, tmp_path: Path) -> None:
    table = spec("").model_copy(update={"path": None, "url": url, "query": query})
    with pytest.raises(UserError) as caught:
        materialize(table, 0, tmp_path, tmp_path)
    assert re.search(says, str(caught.value))
    if "no row" not in says:
        with pytest.raises(UserError):
            table.data()


def test_a_database_gives_the_rows_of_its_query(tmp_path: Path) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/lab.db")
    frame(40).to_sql("measured", engine, index=False)
    settings = {"url": f"sqlite:///{tmp_path}/lab.db", "query": "select task, x, y from measured"}
    table = spec("").model_copy(update={"path": None} | settings)
    first = table.data()
    materialize(table, 0, tmp_path, tmp_path)
    assert load(tmp_path, 0)[0].contents()["rows"] == 480
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("update measured set x = 0 where id = 'r7'"))
    assert table.data() != first


def test_each_file_has_a_digest_by_its_content(tmp_path: Path) -> None:
    table = spec(several(HEADER + ROWS, HEADER + ROWS + "t01,1,2,3\n")(tmp_path))
    first = table.data()
    assert list(first) == ["plate0.csv", "plate1.csv"]
    (tmp_path / "plate1.csv").write_text(HEADER + ROWS)
    second = table.data()
    assert second["plate0.csv"] == first["plate0.csv"] == second["plate1.csv"] != first["plate1.csv"]


def test_a_file_may_be_a_task(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"plate{number:02}.csv").write_text("x,y\n" + "".join(f"{row},{row * number + row % 3}\n" for row in range(9)))
    materialize(spec(tmp_path / "plate*.csv", task={"from": "filename"}), 0, tmp_path, tmp_path)
    table = load(tmp_path, 0)[0]
    names = [name for split in ("validation", "test") for name in table.task_names(split) or ()]
    assert all(name.startswith("plate") for name in names)
    assert sum(split["tasks"] for split in table.contents()["splits"].values()) == 20
