"""How named things (classes, groups) are dealt out to splits: by shares of a hash of their names, or by lists of names in files.

A hash moves nothing: what is added later changes no other's split.
"""

import csv
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from metaopt_core.errors import UserError
from metaopt_core.spec.base import Share, Spec
from metaopt_core.spec.paths import WrittenPath, expanded

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
SPELLINGS: Mapping[str, SplitName] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


class Shares(Spec):
    """The share of the classes (or groups) in each split, by a hash of their names and the seed."""

    train: Share = Field(0.64, description="Meta-training classes.")
    validation: Share = Field(0.16, description="Meta-validation classes.")
    test: Share = Field(0.2, description="Meta-test classes.")

    @model_validator(mode="after")
    def _sum(self) -> Self:
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise PydanticCustomError("shares", "expected shares that add up to 1")
        return self

    def split_of(self, name: str, seed: int) -> SplitName:
        share = share_of(name, seed)
        return "train" if share < self.train else "validation" if share < self.train + self.validation else "test"


class Listed(Spec):
    """Files with the names of the classes of each split. Classes that none of them names are left out."""

    train: WrittenPath = Field(description="Meta-training classes: a name a line, or a CSV file with a column `label`.")
    validation: WrittenPath = Field(description="Meta-validation classes likewise.")
    test: WrittenPath = Field(description="Meta-test classes likewise.")

    @property
    def files(self) -> dict[SplitName, Path]:
        return {split: Path(getattr(self, split)) for split in SPLITS}

    def beside(self, folder: Path) -> "Listed":
        return Listed(**{split: str(folder / expanded(str(path))) for split, path in self.files.items()})

    def digest(self) -> str:
        """Of what the files say. Raises UserError."""
        return hashlib.sha256(repr(sorted(self.splits().items())).encode()).hexdigest()

    def splits(self) -> dict[str, SplitName]:
        """Name → split. Raises UserError for a file that can't be read, and for a name in two of them."""
        found: dict[str, SplitName] = {}
        for split, path in self.files.items():
            for name in names_in(path, f"generate.split.{split}"):
                if found.setdefault(name, split) != split:
                    raise UserError(
                        f"generate.split.{split}: {path} names {name}, which is in {found[name]} already: expected one split"
                    )
        return found


def share_of(name: str, seed: int) -> float:
    """A number in [0, 1) that is as good as random, and a function of name and seed."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()) / 2**64


def names_in(path: Path, place: str) -> list[str]:
    """The names that a text file has, one a line, or a CSV file in its column `label`. Raises UserError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() != ".csv":
                return [line.strip() for line in file if line.strip()]
            rows = csv.DictReader(file)
            if "label" not in (rows.fieldnames or ()):
                raise UserError(f"{place}: {path} has columns {', '.join(rows.fieldnames or ()) or '(none)'}: expected one `label`")
            return sorted({row["label"] for row in rows if row["label"]})
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{place}: {path} can't be read ({error}): expected a text file of names") from None


def shown(names: Iterable[str], most: int = 10) -> str:
    """Names for a message, of many the first ones."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
