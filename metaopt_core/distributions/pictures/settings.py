"""The settings of picture folders: what a pipeline may ask of them, and what it can't."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from metaopt_core.distributions.splits import Listed, Shares
from metaopt_core.errors import UserError
from metaopt_core.spec.base import Impossibility, Positive, Share, as_tuple
from metaopt_core.spec.distribution import Asked, DistributionSpec, Targets, TaskShape
from metaopt_core.spec.paths import WrittenPath, expanded

_PLACEHOLDERS = ("group", "class", "split")


def _patterns(value: Any) -> Any:
    """One pattern, or several."""
    return as_tuple([value] if isinstance(value, str) else value)


def _layout(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        named = re.findall(r"\{(.*?)\}", pattern)
        if named.count("class") != 1 or len(set(named)) != len(named) or not set(named) <= set(_PLACEHOLDERS):
            raise PydanticCustomError(
                "layout", "expected paths with one {{class}}, and {{group}} or {{split}} if there are, as in {{group}}/{{class}}/*"
            )
    return patterns


def _rotations(value: Any) -> Any:
    if type(value) is not int:  # a Literal of numbers would take 4.0 and true
        raise PydanticCustomError("whole", "expected 1, 2 or 4")
    return value


def _split(value: Any) -> Any:
    """What the message says of a value that is none of the three."""
    if value == "given" or isinstance(value, dict | Shares | Listed):
        return value
    raise PydanticCustomError(
        "split", "expected {{train: 0.64, validation: 0.16, test: 0.2}}, a file of class names for each, or given"
    )


class PicturesSettings(DistributionSpec):
    """What `generate:` may say of picture folders, and what is known of their tasks by that."""

    noun = "pictures"
    libraries = ("pillow",)
    not_identity = frozenset({"path", "variable", "obtain"})
    not_shown = frozenset({"distribution", "held_out", "seed", "variable", "obtain", "held_out_ways", "layout"})
    resamples: ClassVar[bool] = True

    path: WrittenPath | None = Field(
        None,
        description="Folder, zip or tar archive in which each folder of pictures is a class, and the folder around it the class's "
        "group; or a CSV file with columns `file` and `label`, and `group` or `split` if there are.",
    )
    variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = Field(
        None, description="Environment variable that says where the pictures are, if `path` doesn't."
    )
    obtain: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Where to get the pictures, which the error says if they aren't there."
    )
    layout: Annotated[tuple[str, ...], AfterValidator(_layout), BeforeValidator(_patterns)] = Field(
        (),
        description="What the paths below the folder, or in the archive, mean, if not group/class/picture: patterns such as "
        "`{split}/{class}/*` or `data/{group}/{class}/*`; the first that fits counts. A class may be several folders deep.",
    )
    size: Annotated[int, Field(ge=8, le=1024)] = Field(
        84, description="Pixels of a picture's side; pictures are cropped to the square in their middle."
    )
    channels: Literal["rgb", "gray"] = Field("rgb", description="Colors of a pixel.")
    invert: bool = Field(False, description="Whether dark is 1 and bright is 0, as for ink on paper.")
    rotations: Annotated[Literal[1, 2, 4], BeforeValidator(_rotations)] = Field(
        1, description="Classes made of a class: 1 as it is, 2 with 180°, 4 with every 90°."
    )
    augment: Annotated[tuple[Literal["flip", "crop", "color"], ...], BeforeValidator(as_tuple)] = Field(
        (),
        description="How pictures of training tasks are varied: mirrored, moved by up to a tenth, in brightness, contrast and "
        "saturation.",
    )
    split: Annotated[Shares | Listed | Literal["given"], BeforeValidator(_split)] = Field(
        Shares(),
        description="Which classes are for what: shares; files of class names; or `given` by {split} in the layout or by the CSV "
        "file's column.",
    )
    split_by: Literal["class", "group"] = Field("class", description="Whether shares are of classes, or of whole groups of them.")
    fewest_pictures: Positive = Field(1, description="Classes with fewer pictures are left out, and listed.")
    smallest: Annotated[int, Field(ge=1)] = Field(8, description="Pictures with a side of fewer pixels are left out, and listed.")
    bad_share: Share = Field(
        0.01, description="Share of the pictures that may be unreadable or too small; they are left out, and listed."
    )
    held_out_ways: Positive = Field(5, description="Classes of each held-out task; a model of N ways uses the first N.")

    @property
    def targets(self) -> Targets:
        return "classes"

    @property
    def shape(self) -> TaskShape:
        return TaskShape((3 if self.channels == "rgb" else 1, self.size, self.size), "classes")

    def identity(self) -> dict[str, Any]:
        return super().identity() | ({"split": "files"} if isinstance(self.split, Listed) else {})

    def beside(self, folder: Path) -> Self:
        changes: dict[str, Any] = {}
        if self.path is not None:
            changes["path"] = str(folder / expanded(self.path))
        if isinstance(self.split, Listed):
            changes["split"] = self.split.beside(folder)
        return self.model_copy(update=changes) if changes else self

    def located(self, environment: Mapping[str, str]) -> Self:
        named = environment.get(self.variable) if self.variable else None
        if self.path is not None or not named:
            return self
        try:
            path = expanded(named).absolute()
        except UserError as error:
            raise UserError(f"{self.variable}: {named!r}: {error}") from None
        if not path.exists():
            raise UserError(f"{self.variable}: {named!r} is not there: expected a folder, an archive or a CSV file{self.how}")
        return self.model_copy(update={"path": str(path)})

    @property
    def how(self) -> str:
        """Where to get the pictures, as the end of a message."""
        return f"; {self.obtain}" if self.obtain else ""

    @property
    def place(self) -> Path:
        """Where the pictures are. Raises UserError where the spec doesn't say, or nothing is there."""
        if self.path is None:
            variable = f", or the environment variable {self.variable}" if self.variable else ""
            raise UserError(f"generate.path: missing: expected a folder, an archive or a CSV file of pictures{variable}{self.how}")
        path = Path(self.path)
        if not path.exists():
            raise UserError(
                f"generate.path: {path} is not there: expected a folder, an archive or a CSV file of pictures{self.how}"
            )
        return path

    def impossibilities(self, asked: Asked) -> Iterator[Impossibility]:
        if asked.ways is not None and asked.ways > self.held_out_ways:
            yield (
                ("train", "ways"),
                f"{asked.ways} ways, but held-out tasks have {self.held_out_ways} classes: expected at most that many, or a larger "
                "generate.held_out_ways",
            )
        if self.split_by == "group" and not isinstance(self.split, Shares):
            yield ("generate", "split_by"), "group is about shares, but split says of each class where it belongs: remove it"
