"""What all models of `pipelines.yaml` share: strictness, and the types of their values."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

Impossibility = tuple[tuple[str, ...], str]
"""An impossible combination of values: the path to the key that has to change, and the message."""


MOST = 10**9
"""The largest number of tasks, steps or units: a larger one is surely a typing mistake, and would overflow counters."""


DEEPEST = 32
"""The deepest nesting: no spec needs a third of it, and hostile ones could exhaust the stack."""

_LONGEST = 10_000  # characters of a text


class Spec(BaseModel):
    """Base of all models: unknown keys and implicit type conversions are errors, and a checked spec never changes.

    pydantic's messages don't quote refused values, because Prefect stores the messages, and a value may be a password.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


def unfit(text: str) -> str | None:
    """Why no spec may contain this text (terminals, databases, size); none if it may."""
    if len(text) > _LONGEST:
        return f"a text of {len(text)} characters, expected at most {_LONGEST}"
    if text.isprintable():
        return None
    for character in text:
        category = unicodedata.category(character)
        if category == "Cs":
            return f"character U+{ord(character):04X} is half of a surrogate pair, expected printable text"
        if category == "Cc" and character not in "\t\n":
            return f"character U+{ord(character):04X} is a control character, expected printable text"
    return None


def impossible(problems: Iterable[Impossibility]) -> PydanticCustomError:
    """A validator's error that reports problems in several places."""
    listed = list(problems)
    text = "; ".join(f"{'.'.join(path)}: {message}" for path, message in listed)
    return PydanticCustomError("impossible", "{text}", {"text": text, "problems": listed})


def problems_of(error: ValidationError, model: type[BaseModel], place: tuple[str, ...]) -> Iterator[Impossibility]:
    """The errors of a user's own component below a place. The schema, from which `explain` works, doesn't contain its model."""
    for details in error.errors(include_input=False, include_url=False):
        path = tuple(map(str, details["loc"]))
        message = details["msg"]
        if details["type"] == "extra_forbidden":
            close = get_close_matches(path[-1], model.model_fields, n=1)
            known = f"expected {' or '.join(model.model_fields)}" if model.model_fields else "there is none"
            message = f"unknown key, {f'did you mean {close[0]}?' if close else known}"
        yield (*place, *path), message.replace("Input should be", "expected", 1).replace("Field required", "missing", 1)


def as_tuple(value: Any) -> Any:
    """A list from the file as a tuple, for a frozen model."""
    return tuple(value) if isinstance(value, list) else value


def ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise PydanticCustomError("range_order", "expected two numbers, the smaller one first")
    return bounds


_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_import_path(text: Any) -> bool:
    """Whether a value has the form module:Name, as in mypackage.nets:Net."""
    return isinstance(text, str) and _IMPORT_PATH.fullmatch(text) is not None


def _import_path(path: str) -> str:
    if not is_import_path(path):
        raise PydanticCustomError("import_path", "expected module:Class, as in mypackage.nets:Net")
    return path


LARGEST_SEED = 2**63 - 1
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
Repetitions = Annotated[int, Field(ge=1, le=1000)]
NotNegative = Annotated[float, Field(ge=0)]
StepSize = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Ways = Annotated[int, Field(ge=2, le=MOST)]
Range = Annotated[tuple[float, float], BeforeValidator(as_tuple), AfterValidator(ascending)]
ImportPath = Annotated[str, AfterValidator(_import_path)]
