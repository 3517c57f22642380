"""The settings of Omniglot's tasks: what a pipeline may ask of them, and what it can't."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from metaopt_core.spec.base import Impossibility, Positive, Spec
from metaopt_core.spec.distribution import Asked, DistributionSpec, Targets, TaskShape
from metaopt_core.spec.paths import WrittenPath, expanded

DRAWINGS_PER_CHARACTER = 20  # every character was drawn once by each of 20 people
CHARACTERS = 1623  # 964 background and 659 evaluation characters
SIZE = 28  # pixels of a picture's side, as learned from


def _whole(value: Any) -> Any:
    if type(value) is not int:  # a Literal of numbers would take 4.0 and true
        raise PydanticCustomError("whole", "expected 1, 2 or 4")
    return value


class OmniglotShift(Spec):
    """What a variant of the test tasks may change."""

    alphabets: Literal["new"] | None = Field(
        None, description="Omniglot: characters of the alphabets that `characters.new_alphabets` keeps apart."
    )


class CharacterSplit(Spec):
    """How many Omniglot characters each split gets; the splits share no character."""

    train: Positive = Field(1100, description="Characters of the meta-training tasks.")
    validation: Positive = Field(100, description="Characters of the meta-validation tasks.")
    test: Positive = Field(423, description="Characters of the meta-test tasks.")
    new_alphabets: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Characters, at least, of whole alphabets that no other split has any of; for the shifted test tasks with "
        "`alphabets: new`.",
    )


class OmniglotSettings(DistributionSpec):
    """What `generate:` may say of Omniglot, and what is known of its tasks by that."""

    noun = "Omniglot tasks"
    libraries = ("pillow",)
    not_identity = frozenset({"folder"})
    not_shown = frozenset({"distribution", "held_out", "seed", "folder", "held_out_ways"})
    Shift: ClassVar[type[Spec]] = OmniglotShift

    folder: WrittenPath | None = Field(
        None,
        description="Folder with images_background.zip and images_evaluation.zip, or with the unpacked trees. Without it the "
        "environment variable METAOPT_OMNIGLOT is asked, and then the archives are downloaded.",
    )
    split_by: Literal["character", "alphabet"] = Field(
        "character",
        description="What is held out: single characters, or whole alphabets. Then validation and test have at least their numbers "
        "of characters, and train has what is left, or at least its number.",
    )
    characters: CharacterSplit = Field(CharacterSplit(), description="Characters in each split.")
    rotations: Annotated[Literal[1, 2, 4], BeforeValidator(_whole)] = Field(
        4, description="Classes made of a character: 1 as drawn, 2 with 180°, 4 with every 90°."
    )
    held_out_ways: Positive = Field(20, description="Classes stored with each held-out task; a model of N ways uses the first N.")

    @property
    def targets(self) -> Targets:
        return "classes"

    @property
    def shape(self) -> TaskShape:
        return TaskShape((1, SIZE, SIZE), "classes")

    def beside(self, folder: Path) -> Self:
        if self.folder is None:
            return self
        return self.model_copy(update={"folder": str(folder / expanded(self.folder))})

    def impossibilities(self, asked: Asked) -> Iterator[Impossibility]:
        split = self.characters
        if split.new_alphabets and self.split_by == "alphabet":
            yield (
                ("generate", "characters", "new_alphabets"),
                f"{split.new_alphabets} characters, but split_by is alphabet, so that the test tasks are of new alphabets already: "
                "expected 0",
            )
        if (wanted := split.train + split.validation + split.test + split.new_alphabets) > CHARACTERS:
            yield (
                ("generate", "characters"),
                f"{wanted} characters in all, but Omniglot has {CHARACTERS}: expected at most that many",
            )
        if asked.ways is None:
            return
        path: tuple[str, ...]
        splits = {"train": split.train} if asked.trains else {}
        splits |= {"validation": split.validation, "test": split.test}
        splits |= {"new_alphabets": split.new_alphabets} if split.new_alphabets else {}
        for name, characters in splits.items():
            ways = asked.ways if name == "train" else self.held_out_ways
            path = ("train", "ways") if name == "train" else ("generate", "held_out_ways")
            classes = characters * self.rotations
            if ways > classes:
                yield path, f"{ways} ways, but the {name} split has {classes} classes: expected at most that many"
        if asked.ways > self.held_out_ways:
            yield (
                ("train", "ways"),
                f"{asked.ways} ways, but held-out tasks store {self.held_out_ways} classes: expected at most that many, or a "
                "larger generate.held_out_ways",
            )
        training = asked.episodes["train",]
        episodes = {path: episode for path, episode in asked.episodes.items() if path != ("train",)}
        differing = {path: episode for path, episode in episodes.items() if episode != training}  # the others say it a second time
        for path, (shots, queries) in {("train",): training, **differing}.items():
            if shots + queries > DRAWINGS_PER_CHARACTER:
                yield (
                    path,
                    f"{shots} shots and {queries} queries, but a character has {DRAWINGS_PER_CHARACTER} drawings: expected at most "
                    "that many together",
                )

    def shift_refusals(self, changes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        if changes.get("alphabets") and not self.characters.new_alphabets:
            yield "alphabets", "none are kept apart: expected generate.characters.new_alphabets to say how many characters"
