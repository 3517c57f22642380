"""What `generate` writes of pictures: their pixels, and which class and split each is of.

pixels.npy: uint8 [pictures, channels, size, size]. pictures.parquet: a picture a row, in the order of split, class and name, with
`row`, its place among the pixels. left_out.csv: pictures and classes that are not used, and why.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from metaopt_core.distributions.pictures.decoding import decode_all
from metaopt_core.distributions.pictures.settings import PicturesSettings
from metaopt_core.distributions.pictures.sources import Picture, opened
from metaopt_core.distributions.splits import SPLITS, Listed, Shares, SplitName, shown
from metaopt_core.errors import UserError

Class = tuple[str, str]
"""Group (empty where there is none) and name: two groups may have classes of one name."""


def materialize(spec: PicturesSettings, seed: int, folder: Path) -> None:
    """Write the files of the docstring above. Raises UserError for pictures or splits that can't be used."""
    with opened(spec) as source:
        splits = splits_of(spec, seed, source.pictures, source.place)
        before = Counter(splits.values())
        check_splits(spec, before, before, source.place)
        used = [one for one in source.pictures if _class(one) in splits]
        bad = decode_all(spec, source, [one.name for one in used], folder / "pixels.npy")
    counts = Counter(_class(one) for one in used if one.name not in bad)
    few = {name: counts[name] for name in splits if counts[name] < spec.fewest_pictures}
    rows = [
        (splits[_class(one)], *_class(one), one.name, row)
        for row, one in enumerate(used)
        if one.name not in bad and _class(one) not in few
    ]
    columns = ["split", "group", "label", "name", "row"]
    table = pd.DataFrame(sorted(rows, key=lambda row: (SPLITS.index(row[0]), *row[1:])), columns=columns)
    left = Counter(table.drop_duplicates(["group", "label"])["split"])
    check_splits(spec, left, before, source.place)
    table.to_parquet(folder / "pictures.parquet", index=False)
    with (folder / "left_out.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "why"])
        writer.writerows(bad.items())
        writer.writerows([said(name), f"a class of {count} pictures"] for name, count in few.items())
        writer.writerows(
            [said(name), "a class of no split"] for name in sorted({_class(one) for one in source.pictures} - set(splits))
        )


def _class(picture: Picture) -> Class:
    return picture.group or "", picture.label


def said(name: Class) -> str:
    """A class as messages and files call it."""
    return "/".join(part for part in name if part)


def splits_of(spec: PicturesSettings, seed: int, pictures: Sequence[Picture], place: Path) -> dict[Class, SplitName]:
    """The split of every class that has one. Raises UserError where what says so is at odds with the pictures."""
    classes = sorted({_class(one) for one in pictures})
    if isinstance(spec.split, Listed):
        return _by_lists(spec.split, classes, place)
    if spec.split == "given":
        return _as_given(pictures, place)
    if spec.split_by == "group":
        if loose := [said(name) for name in classes if not name[0]]:
            raise UserError(
                f"generate.split_by: {place} has classes without a group ({shown(loose)}): expected root/group/class/pictures, or "
                "split_by: class"
            )
        return {name: spec.split.split_of(name[0], seed) for name in classes}
    return {name: spec.split.split_of(said(name), seed) for name in classes}


def _by_lists(listed: Listed, classes: Sequence[Class], place: Path) -> dict[Class, SplitName]:
    splits = listed.splits()
    called: dict[str, list[Class]] = defaultdict(list)
    for name in classes:
        for spelling in {said(name), name[1]}:
            called[spelling].append(name)
    for spelling, split in splits.items():
        if spelling not in called:
            raise UserError(
                f"generate.split.{split}: {listed.files[split]} names {spelling}, and {place} has no such class: expected some of "
                f"{shown([said(name) for name in classes])}"
            )
        if len(called[spelling]) > 1:
            raise UserError(
                f"generate.split.{split}: {listed.files[split]} names {spelling}, of which {place} has several: expected one of "
                f"{shown([said(name) for name in called[spelling]])}"
            )
    return {called[spelling][0]: split for spelling, split in splits.items()}


def _as_given(pictures: Sequence[Picture], place: Path) -> dict[Class, SplitName]:
    splits: dict[Class, SplitName] = {}
    for one in pictures:
        if one.split is None:
            raise UserError(
                f"generate.split: given, and {place} doesn't say the split of {one.name}: expected {{split}} in generate.layout, "
                "or a column `split` in the CSV file"
            )
        if splits.setdefault(_class(one), one.split) != one.split:
            raise UserError(
                f"generate.split: given, and {place} has the class {said(_class(one))} in {splits[_class(one)]} and {one.split}: "
                "expected every class in one split, so that test classes are never seen in training"
            )
    return splits


def check_splits(spec: PicturesSettings, classes: Counter[SplitName], before: Counter[SplitName], place: Path) -> None:
    """Raise UserError where a split has too few classes for its tasks. before: with classes of too few pictures."""
    for split in SPLITS:
        count = classes[split]
        needed = 2 if split == "train" else spec.held_out_ways
        if count * spec.rotations >= needed:
            continue
        listed = ", ".join(f"{classes[name]} for {name}" for name in SPLITS)
        small = f" ({before[split] - count} more have fewer than {spec.fewest_pictures} pictures)" if before[split] > count else ""
        turned = f", {spec.rotations} rotations each" if spec.rotations > 1 else ""
        remedy = "other shares, another generate.seed" if isinstance(spec.split, Shares) else "other classes in it"
        asks = "two to train on" if split == "train" else f"the {needed} that generate.held_out_ways says"
        raise UserError(
            f"generate.split: too few classes: the {split} split of {place} has {count}{small}{turned}; in all there are {listed}: "
            f"expected at least {asks}; {remedy}" + ("" if split == "train" else ", or fewer held_out_ways")
        )
