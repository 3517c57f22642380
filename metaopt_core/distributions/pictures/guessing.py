"""A pipeline for pictures of which only the folder or archive is known."""

import io
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import yaml
from PIL import Image

from metaopt_core.distributions.pictures.settings import PicturesSettings
from metaopt_core.distributions.pictures.sources import LARGEST, opened
from metaopt_core.distributions.splits import SPELLINGS, SPLITS
from metaopt_core.errors import UserError

_LOOKED_AT = 40  # pictures
_SIZES = (28, 64, 84)  # pixels of a side that networks are made for
_FEWEST = 2 + 1  # classes for each split


@dataclass(frozen=True)
class Guess:
    """What a pipeline says of pictures. pictures: of a small class, of which nine in ten have as many. said: in sentences."""

    name: str
    given: bool
    ways: int
    pictures: int
    size: int
    gray: bool
    said: tuple[str, ...]


def guess(place: Path, name: str | None = None) -> Guess:
    """Raises UserError for what can't be read, and where there are too few classes."""
    settings = PicturesSettings(distribution="pictures", path=str(place))
    with opened(settings) as source:
        found = source.pictures
        tops = {one.name.split("/")[0].lower() for one in found}
        given = all(one.split for one in found)
        if tops <= SPELLINGS.keys() and len({SPELLINGS[top] for top in tops}) == len(SPLITS):
            given = True
        names = [one.name for one in found]
        looked_at = names[:: max(1, len(names) // _LOOKED_AT)][:_LOOKED_AT]
        sides, colored = [], False
        for _, data in source.read(looked_at):
            if isinstance(data, bytes) and len(data) <= LARGEST:
                try:
                    with Image.open(io.BytesIO(data)) as picture:
                        sides.append(min(picture.size))
                        colored = colored or picture.mode not in ("1", "L", "LA", "I;16")
                except Exception:  # noqa: S112 - generate lists what can't be read
                    continue
    if not sides:
        raise UserError(f"{place}: none of {len(looked_at)} pictures can be read: expected pictures that Pillow opens")
    classes = Counter((one.group, one.label) for one in found)
    if len(classes) < _FEWEST * 2:
        raise UserError(
            f"{place}: {len(classes)} classes: expected at least {_FEWEST * 2}, a folder each, to hold some of them out"
        )
    sizes = sorted(classes.values())
    pictures = sizes[len(sizes) // 10]
    ways = 5 if len(classes) >= 40 else 2
    size = next((size for size in reversed(_SIZES) if size <= median(sides)), _SIZES[0])
    groups = {one.group for one in found if one.group}
    of_groups = f" in {len(groups)} groups" if groups and not given else ""
    said = [f"{len(found):,} pictures of {len(classes):,} classes{of_groups}, {sizes[0]} to {sizes[-1]} each"]
    said.append("split: given by the folders" if given else "split: by shares of the classes, which are a hash of their names")
    said.append(f"pictures: {'in color' if colored else 'gray'}, scaled to {size}×{size}")
    return Guess(name or _name(place), given, ways, pictures, size, not colored, tuple(said))


def _name(place: Path) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", place.absolute().name.lower().partition(".")[0]).strip("-._") or "pictures"


def pipelines_text(guess: Guess, place: Path, beside: Path) -> str:
    """The pipelines file, with comments. place: of the pictures; beside: where the text will be."""
    shots = 5 if guess.pictures >= 10 else 1
    queries = max(1, min(15, guess.pictures - shots))
    path = _flow(os.path.relpath(place.absolute(), beside.absolute().parent))
    table = place.suffix.lower() == ".csv"
    layout = '      layout: "{split}/{class}/*" # what the folders mean\n' if guess.given and not table else ""
    shares = "{train: 0.6, validation: 0.2, test: 0.2} # shares of the classes"
    split = "given # by the folders, or by the file's column" if guess.given else shares
    by_group = "" if guess.given else "      # split_by: group            # whole groups of classes stay together\n"
    return f"""\
# What to meta-learn from {place.name}. `metaopt data check {guess.name}` looks at the pictures, `metaopt run {guess.name}`
# runs it, and `metaopt show {guess.name}` prints it with all defaults filled in.

pipelines:
  {_flow(guess.name)}:
    generate:
      distribution: pictures
      path: {path}
{layout}      size: {guess.size} # pixels of a side
      channels: {"gray" if guess.gray else "rgb"}
      augment: [flip, crop] # of training pictures; or color. Leave out flip where left and right matter
      split: {split}
{by_group}      fewest_pictures: {shots + queries} # classes with fewer are left out, and listed
      held_out_ways: {guess.ways}
      held_out: {{validation_tasks: 100, test_tasks: 500}}
    train:
      model: {{name: conv4, filters: 32, pooling: {"true" if guess.size > _SIZES[0] else "false"}}}
      algorithm: anil # adapts the last layer alone; the baseline ProtoNet comes beside it
      iterations: 1500
      meta_batch_size: 2
      ways: {guess.ways} # classes of a task
      shots: {shots} # support pictures of each
      queries: {min(queries, 5)}
      inner: {{lr: 0.05, learned_lr: per_parameter, steps: 1}}
      outer: {{schedule: cosine}}
      validation: {{every: 250, steps: 1, queries: {queries}}}
    evaluate:
      steps: 1
      queries: {queries}
"""


def _flow(value: object) -> str:
    """A value as YAML in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("...").strip()
