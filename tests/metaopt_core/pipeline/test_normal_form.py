"""What of a source counts: snippets before and after a change that people see, and one that computes something else."""

from pathlib import Path

import pytest

from metaopt_core.pipeline import code
from metaopt_core.pipeline.normal_form import pieces_of

SOURCE = '''
"""A module."""

import logging
import warnings
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from metaopt_core import progress
from metaopt_core.errors import UserError
from metaopt_core.spec.base import Spec
from metaopt_core.spec.method import MethodInfo
from metaopt_core.spec.metric import metric

if not TYPE_CHECKING:
    THREADS = 1

label = "price"
_log = logging.getLogger(__name__)


class Settings(Spec):
    """Some."""

    size: int = Field(3, description="How large.")

    @property
    def doubled(self) -> int:
        return 2 * self.size


class Options(BaseModel):
    depth: int = Field(2)


class Column:
    unit = "price"

    def label(self) -> str:
        return "price"


class Method(MethodInfo):
    title: str = "MAML"
    color = "tab:blue"
    weight = 0.5

    def label(self) -> str:
        return "MAML"


@metric(title="an error", targets="real")
def compute(values: list[float], scale: float = 1.0) -> float:
    """The sum."""
    if not values:
        raise UserError("nothing to add: expected a number")
    if scale < 0:
        raise ValueError(f"{scale} is negative")
    total: float = 0.0
    with progress.bar(len(values), "adding") as bar:
        for index, value in enumerate(values):
            total += scale * value  # each of them
            bar.update(index + 1)
    _log.warning("added %d", len(values))
    warnings.warn("added", stacklevel=1)
    warnings.simplefilter("ignore")
    draw(total, label="sum")
    return total


def draw(total: float, label: str) -> float:
    return total
'''

TOLD = [
    ('"""A module."""', '"""Another description."""'),
    ('"""The sum."""', ""),
    ("  # each of them", "  # one after the other"),
    ("total += scale * value", "total += (scale * value)"),
    ('"adding"', '"summing up"'),
    ("bar.update(index + 1)", 'bar.update(index, "so far")'),
    ("            bar.update(index + 1)\n", ""),
    ('"nothing to add: expected a number"', '"empty: expected numbers"'),
    ('f"{scale} is negative"', '"negative: " f"{scale}"'),
    ('_log.warning("added %d", len(values))', '_log.info("%d values", len(values))'),
    ('    _log.warning("added %d", len(values))\n', ""),
    ("scale: float = 1.0", "scale: float | int = 1.0"),
    ("total: float = 0.0", "total = 0.0"),
    (") -> float:\n    return total", ") -> int:\n    return total"),
    ('title: str = "MAML"', 'title: str = "Model-agnostic"'),
    ('"tab:blue"', '"tab:red"'),
    ('        return "MAML"', '        return "MAML".lower()'),
    ('title="an error"', 'title="the error"'),
    ('warnings.warn("added"', 'warnings.warn("summed"'),
    ('Field(3, description="How large.")', 'Field(4, gt=0, description="How wide.")'),
]

COMPUTED = [
    ("scale * value", "scale + value"),
    ("scale: float = 1.0", "scale: float = 2.0"),
    ("scale < 0", "scale <= 0"),
    ("total: float = 0.0", "total: float = 1.0"),
    ("enumerate(values)", "enumerate(values[1:])"),
    ("2 * self.size", "3 * self.size"),
    ("weight = 0.5", "weight = 0.25"),
    ("weight = 0.5", 'weight = "0.5"'),
    ('label="sum"', 'label="total"'),  # the names of what our contracts declare mean something else elsewhere
    ('label = "price"', 'label = "rent"'),
    ('unit = "price"', 'unit = "rent"'),
    ('        return "price"', '        return "rent"'),
    ("THREADS = 1", "THREADS = 2"),
    ("Field(2)", "Field(3)"),
    ('simplefilter("ignore")', 'simplefilter("error")'),
    ("class Method(MethodInfo):", "class Method(MethodInfo, Settings):"),
    ("from pydantic import BaseModel, Field", "from pydantic.v1 import BaseModel, Field"),
]


@pytest.mark.parametrize(("old", "new"), TOLD)
def test_what_is_told_to_people_changes_nothing(tmp_path: Path, old: str, new: str) -> None:
    assert _digest(tmp_path, SOURCE) == _digest(tmp_path, _changed(old, new))


@pytest.mark.parametrize(("old", "new"), COMPUTED)
def test_what_computes_changes_the_digest(tmp_path: Path, old: str, new: str) -> None:
    assert _digest(tmp_path, SOURCE) != _digest(tmp_path, _changed(old, new))


def _changed(old: str, new: str) -> str:
    assert old in SOURCE
    return SOURCE.replace(old, new)


def _digest(folder: Path, text: str) -> str:
    file = folder / "metaopt_core" / f"module_{abs(hash(text))}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return "\n".join(piece.text for piece in pieces_of(file, f"metaopt_core.{file.stem}"))


@pytest.mark.parametrize(("old", "new"), [*TOLD[4:], *COMPUTED])
def test_in_a_users_file_everything_counts(tmp_path: Path, old: str, new: str) -> None:
    assert _whole(tmp_path, SOURCE) != _whole(tmp_path, _changed(old, new))


@pytest.mark.parametrize(("old", "new"), TOLD[:4])
def test_except_docstrings_comments_and_formatting(tmp_path: Path, old: str, new: str) -> None:
    assert _whole(tmp_path, SOURCE) == _whole(tmp_path, _changed(old, new))


def _whole(folder: Path, text: str) -> str:
    (folder / "own.py").write_text(text)
    return code.digest_of(folder / "own.py")
