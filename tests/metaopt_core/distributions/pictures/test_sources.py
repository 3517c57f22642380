"""The same pictures, however they are packed and named; and what can be wrong with where they are."""

import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from metaopt_core.distributions.contract import materialize
from metaopt_core.distributions.omniglot import archives
from metaopt_core.distributions.pictures import PicturesSpec
from metaopt_core.distributions.pictures.decoding import decoded
from metaopt_core.distributions.pictures.sources import opened
from metaopt_core.distributions.splits import Listed
from metaopt_core.errors import UserError
from metaopt_core.spec.distribution import HeldOut
from tests.metaopt_core.distributions.pictures.conftest import picture, pictures, written
from tests.small import png

SPLIT = {"train": 0.5, "validation": 0.25, "test": 0.25}


def spec_of(path: Path | None, **settings: Any) -> PicturesSpec:
    held_out = HeldOut(validation_tasks=3, test_tasks=4)
    values = {"size": 8, "split": SPLIT, "held_out_ways": 2, "held_out": held_out, **settings}
    return PicturesSpec(distribution="pictures", path=None if path is None else str(path), **values)


def zipped(file: Path, files: dict[str, bytes], below: str = "") -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(below + name, data)
    return file


def tarred(file: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(file, "w:gz") as archive:
        for name, data in reversed(files.items()):
            member = tarfile.TarInfo(f"./data/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def test_pictures_are_the_same_however_they_are_packed(tree: Path, tmp_path: Path) -> None:
    packed = [tree, zipped(tmp_path / "a.zip", pictures(), "top/inner/"), tarred(tmp_path / "a.tar.gz", pictures())]
    identities = {spec_of(path).data() for path in packed}
    assert len(identities) == 1
    made = []
    for number, path in enumerate(packed):
        folder = tmp_path / str(number)
        folder.mkdir()
        materialize(spec_of(path), 0, folder, folder)
        made.append((pd.read_parquet(folder / "pictures.parquet").drop(columns="name"), (folder / "pixels.npy").read_bytes()))
    assert all(table.equals(made[0][0]) and pixels == made[0][1] for table, pixels in made)


def test_a_changed_picture_and_a_renamed_class_are_other_data(tmp_path: Path) -> None:
    root = written(tmp_path / "root", pictures())
    before = spec_of(root).data()
    (root / "group0/class0").rename(root / "group0/class9")
    renamed = spec_of(root).data()
    (root / "group1/class0/0.png").write_bytes(picture((0, 0, 0), 0))
    assert len({before, renamed, spec_of(root).data()}) == 3


def test_a_layout_says_what_folders_mean(tmp_path: Path) -> None:
    files = {
        f"set/{split}/deep/{label}/{number}.png": picture((0, 0, 0), number)
        for split in ("train", "val")
        for label in "ab"
        for number in range(2)
    }
    root = written(tmp_path, files | {"set/icons/a.png": picture((0, 0, 0), 0), "set/.hidden/x.png": b"", "notes.txt": b""})
    with opened(spec_of(root, layout="set/{split}/{class}/*")) as source:
        assert {(one.label, one.split) for one in source.pictures} == {
            (f"deep-{label}", s) for label in "ab" for s in ("train", "validation")
        }
    with opened(spec_of(root, layout=["other/{class}/*", "set/*/{group}/{class}/*"])) as source:
        assert {(one.label, one.group) for one in source.pictures} == {("a", "deep"), ("b", "deep")}


def test_a_csv_file_names_files_labels_and_splits(tree: Path, tmp_path: Path) -> None:
    rows = ["file,label,split"] + [
        f"{tree}/{name},{name.split('/')[1]}{name[5]},{('train', 'val', 'test', 'train')[int(name[5])]}" for name in pictures()
    ]
    (tmp_path / "index.csv").write_text("\n".join(rows))
    materialize(spec_of(tmp_path / "index.csv", split="given"), 0, tmp_path, tmp_path)
    table = pd.read_parquet(tmp_path / "pictures.parquet")
    assert table.groupby("split")["label"].nunique().to_dict() == {"train": 6, "validation": 3, "test": 3}


def bomb() -> bytes:
    """A PNG that says to have 60,000 × 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = [header, b"IDAT" + zlib.compress(bytes(100)), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in parts
    )


BAD = {
    "group0/class0/bomb.png": bomb(),
    "group0/class0/cut.png": picture((0, 0, 0), 0)[:200],
    "group0/class0/text.jpg": b"not a picture",
    "group0/class0/tiny.png": picture((0, 0, 0), 0, size=(7, 30)),
}


def test_what_can_not_be_used_is_listed_up_to_a_share(tmp_path: Path) -> None:
    root = written(tmp_path / "root", pictures() | BAD)
    with pytest.raises(UserError, match=r"generate.bad_share: 4 of the 76 pictures of .* can't be used \(group0/class0/bomb.png: "):
        materialize(spec_of(root), 0, tmp_path, tmp_path)
    materialize(spec_of(root, bad_share=0.1), 0, tmp_path, tmp_path)
    why = pd.read_csv(tmp_path / "left_out.csv").set_index("what")["why"]
    assert list(why.index) == list(BAD)
    assert "decompression bomb" in why.iloc[0]
    assert why.iloc[2] == "no picture that Pillow can read"
    assert why.iloc[3] == "7×30 pixels: expected at least 8 a side"
    assert len(pd.read_parquet(tmp_path / "pictures.parquet")) == 72


def test_a_huge_member_of_an_archive_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaopt_core.distributions.pictures.sources.LARGEST", 10_000)
    huge = {"group0/class0/huge.bmp": bytes(1_000_000)}
    for path in (zipped(tmp_path / "a.zip", pictures() | huge), tarred(tmp_path / "a.tgz", pictures() | huge)):
        with pytest.raises(UserError, match=r"huge.bmp: 1,000,000 bytes, and a picture has at most 10,000\)"):
            materialize(spec_of(path, bad_share=0.001), 0, tmp_path, tmp_path)


def test_pictures_are_upright_squares_on_white() -> None:
    wide = Image.new("RGB", (40, 20), "red")
    wide.paste("lime", (10, 0, 30, 20))
    file = io.BytesIO()
    wide.save(file, "PNG")
    assert decoded(spec_of(None), file.getvalue())[:, 4, 4].tolist() == [0, 255, 0]
    clear, file = Image.new("LA", (16, 16), (0, 0)), io.BytesIO()
    clear.save(file, "PNG")
    assert decoded(spec_of(None, channels="gray"), file.getvalue()).min() == 255
    assert decoded(spec_of(None, channels="gray", invert=True), file.getvalue()).max() == 0
    turned, file, exif = Image.new("L", (16, 16)), io.BytesIO(), Image.Exif()
    turned.paste(255, (0, 0, 16, 8))  # bright above
    exif[0x0112] = 3  # upside down
    turned.save(file, "PNG", exif=exif)
    assert decoded(spec_of(None, channels="gray"), file.getvalue())[0, [0, 7], 4].tolist() == [0, 255]
    deep, file = Image.fromarray((pd.Series(range(256)).to_numpy() * 257).astype("uint16").reshape(16, 16)), io.BytesIO()
    deep.save(file, "PNG")
    assert decoded(spec_of(None, channels="gray", size=16), file.getvalue()).ravel().tolist() == list(range(256))


@pytest.mark.parametrize(
    ("name", "files", "settings", "message"),
    [
        ("nowhere", None, {"obtain": "get it from X"}, "generate.path: .*nowhere is not there: .*; get it from X$"),
        ("root", {"notes.txt": b"x"}, {}, "root has no pictures: expected folders with files such as .jpg or .png"),
        ("root", {"a.png": b"", "b/c.png": b""}, {}, r"root has pictures outside of a class's folder \(a.png\)"),
        (
            "root",
            {"a/b.png": b"", "c/d.png": b""},
            {"layout": "x/{class}/*"},
            r"none of the 2 pictures .* first is a/b.png: .* as {class}/\*",
        ),
        (
            "root",
            {"x/b.png": b"", "c/d.png": b""},
            {"layout": "{split}/{class}"},
            "b.png has the split x: expected train, val or test|c",
        ),
        ("a.zip", b"PK\x03\x04 cut short", {}, "a.zip: not a readable archive .*: expected a complete one"),
        ("a.tar.gz", b"\x1f\x8b cut short", {}, "a.tar.gz: not a readable archive"),
        ("a.rar", b"Rar!", {}, "a.rar is neither a folder, an archive .* nor a CSV file"),
        ("a.csv", b"path,label\n", {}, "a.csv has columns path, label: expected `file` and `label`"),
        ("a.csv", b"file,label\n", {}, "a.csv names no pictures"),
        ("a.csv", b"file,label\nx.png,\n", {}, "a.csv:2: no label"),
        ("a.csv", b"file,label,split\nx.png,a,dev\n", {}, "a.csv:2: the split dev: expected train, val or test"),
        ("a.csv", b"file,label\nx.png,a\ny.png,b\n", {"split": "given"}, "doesn't say the split of x.png"),
        (
            "a.csv",
            b"file,label,split\nx.png,a,val\ny.png,a,test\n",
            {"split": "given"},
            "class a in validation and test: expected every",
        ),
        ("a.csv", "file,label\né.png,a\n".encode("latin-1"), {}, "a.csv: can't be read .*: expected a CSV file in UTF-8"),
    ],
)
def test_what_is_wrong_with_a_source_is_one_error(
    tmp_path: Path, name: str, files: Any, settings: dict[str, Any], message: str
) -> None:
    if isinstance(files, dict):
        written(tmp_path / name, files)
    elif files is not None:
        (tmp_path / name).write_bytes(files)
    with pytest.raises(UserError, match=message):
        materialize(spec_of(tmp_path / name, **settings), 0, tmp_path, tmp_path)


def test_a_picture_that_a_csv_file_names_and_that_is_not_there_is_listed(tmp_path: Path) -> None:
    rows = [f"{split}{label}.png,{split}{label},{split}" for split in ("train", "val", "test") for label in "ab"]
    (tmp_path / "a.csv").write_text("file,label,split\n" + "\n".join(rows))
    with pytest.raises(UserError, match=r"generate.bad_share: 6 of the 6 pictures .*testa.png: .*No such file"):
        materialize(spec_of(tmp_path / "a.csv", split="given"), 0, tmp_path, tmp_path)


def test_an_environment_variable_says_where_pictures_are(tree: Path, tmp_path: Path) -> None:
    spec = spec_of(None, variable="MY_PICTURES", obtain="ask Ada")
    with pytest.raises(UserError, match=r"generate.path: missing: .*, or the environment variable MY_PICTURES; ask Ada"):
        spec.data()
    with pytest.raises(UserError, match=r"MY_PICTURES: .*nothing.* is not there: expected a folder, .*; ask Ada"):
        spec.located({"MY_PICTURES": str(tmp_path / "nothing")})
    assert spec.located({"MY_PICTURES": str(tree)}).data() == spec_of(tree).data()


def listed(folder: Path, **names: str) -> Listed:
    for split, text in names.items():
        (folder / f"{split}.txt").write_text(text)
    return Listed(**{split: str(folder / f"{split}.txt") for split in names})


def test_lists_of_classes_say_what_is_for_what(tree: Path, tmp_path: Path) -> None:
    split = listed(
        tmp_path,
        train="group0/class0\ngroup0/class1\n",
        validation="group1/class0\ngroup1/class1",
        test="group2/class0\ngroup2/class1",
    )
    before = spec_of(tree, split=split).data()
    materialize(spec_of(tree, split=split), 0, tmp_path, tmp_path)
    table = pd.read_parquet(tmp_path / "pictures.parquet")
    assert set(table[table["split"] == "test"]["group"]) == {"group2"}
    assert len(pd.read_csv(tmp_path / "left_out.csv")) == 6  # classes of no split
    (tmp_path / "train.txt").write_text("group0/class0\ngroup0/class2\n")
    assert spec_of(tree, split=split).data() != before


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            "group0/class0\ngroup7/class0\n",
            r"generate.split.train: .* names group7/class0, and .* has no such class: expected some of group0/",
        ),
        ("class1\n", "names class1, of which .* has several: expected one of group0/class1"),
        ("group1/class0", "names group1/class0, which is in train already"),
        ("group0/class0", r"too few classes: the train split of .* has 1; in all there are 1 for train, 1 for validation"),
    ],
)
def test_lists_that_are_at_odds_with_the_pictures_are_refused(tree: Path, tmp_path: Path, train: str, message: str) -> None:
    split = listed(tmp_path, train=train, validation="group1/class0", test="group2/class0")
    with pytest.raises(UserError, match=message):
        materialize(spec_of(tree, split=split), 0, tmp_path, tmp_path)


def test_a_drawing_of_omniglot_has_the_pixels_that_omniglot_has(tmp_path: Path) -> None:
    for number, data in enumerate(drawings := [png(np.random.default_rng(number).random((15, 15)) < 0.2) for number in range(20)]):
        (tmp_path / f"{number:02}.png").write_bytes(data)
    source = archives._Source(tmp_path, [], lambda name: (tmp_path / name).read_bytes(), checked=False)
    character = archives._Character("a", "b", [f"{number:02}.png" for number in range(20)])
    spec = spec_of(None, channels="gray", invert=True, size=28)
    assert np.array_equal(np.concatenate([decoded(spec, data) for data in drawings]), archives._decode(source, character))
