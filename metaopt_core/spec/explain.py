"""pydantic's errors as sentences: which key, what was found there, what was expected, and what was probably meant."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from metaopt_core.spec.base import MOST
from metaopt_core.spec.document import BROKEN, Node, shown
from metaopt_core.spec.schema import Schema, kind_key, kinds, member_of, models_schema, resolve

Path = tuple[str | int, ...]
_MOST_NAMED = 50  # alternatives that a message lists
_MEANT = {"gpu": "cuda"}  # words that mean one value but are spelled more like another


@dataclass(frozen=True)
class Refusal:
    """A mistake inside a pipeline's block.

    path: keys and list indices from the pipeline's block to what is wrong.
    at_key: it is about the key (or, if that is missing, the block around it) rather than about the value.
    unknown: there is no such key.
    absence: something is missing, possibly because `extends` could not be read.
    """

    path: Path
    message: str
    at_key: bool = False
    unknown: bool = False
    absence: bool = False


def refusals(error: ValidationError, block: Node) -> Iterator[Refusal]:
    """Every mistake that pydantic found in a pipeline's block, except for values that were already reported."""
    for details in error.errors(include_url=False):
        if details["type"] == "impossible":
            for path, message in details["ctx"]["problems"]:
                yield Refusal(tuple(path), message, at_key=True)
        elif (refusal := _refusal(details, block)) is not None:
            yield refusal


def _refusal(details: ErrorDetails, block: Node) -> Refusal | None:
    path, schema, around = _follow(details["loc"])
    found = _find(block, path)
    if found is not None and found.value is BROKEN:
        return None
    match details["type"]:
        case "extra_forbidden":
            known = list(around["properties"])
            if len(path) == 1:  # in a pipeline's block, whose key is its name
                known = ["extends", *(key for key in known if key != "name")]
            return Refusal(path, unknown_key(str(path[-1]), known), at_key=True, unknown=True)
        case "missing" if isinstance(path[-1], str):
            return Refusal(path, f"missing, expected {expectation(schema)}", at_key=True, absence=True)
        case "union_tag_not_found":
            key = (*path, str(kind_key(schema)))
            return Refusal(key, f"missing, expected {either(kinds(schema))}", at_key=True, absence=True)
        case "union_tag_invalid":
            key = (*path, str(kind_key(schema)))
            tag = _find(block, key)
            assert tag is not None  # its value was invalid
            expected = either(kinds(schema)) + (", or an import path module:Class" if key == ("generate", "distribution") else "")
            return None if tag.value is BROKEN else Refusal(key, _unexpected(expected, tag, kinds(schema)))
        case "component" if not details["msg"].startswith("expected "):
            return Refusal(path, details["msg"])
        case "less_than_equal" if details["ctx"]["le"] == MOST:
            expected = f"a whole number of at most {MOST}"
        case "too_long" if found is not None and isinstance(found.value, dict):
            expected = f"at most {details['ctx']['max_length']} of them"
        case "address":  # the found value may be a secret
            return Refusal(path, details["msg"])
        case "finite_number":
            expected = expectation(schema).replace("number", "finite number")
        case "missing" | "too_long" | "too_short":  # in a list: the message describes the list as a whole
            path, schema, _ = _follow(details["loc"][:-1]) if isinstance(path[-1], int) else (path, schema, around)
            found, expected = _find(block, path), expectation(schema)
        case _:
            own = details["msg"].startswith("expected ")  # our own validators' messages say what they expect
            expected = details["msg"].removeprefix("expected ") if own else expectation(schema)
    assert found is not None  # a value was refused
    absence = details["type"] == "schedule" and isinstance(found.value, dict) and not {"cron", "every"} & set(found.value)
    return Refusal(path, _unexpected(expected, found, _candidates(details["type"], schema)), absence=absence)


def _unexpected(expected: str, found: Node, candidates: Iterable[str] = ()) -> str:
    return f"expected {expected}, found {found.describe()}{suggestion(found.value, candidates)}"


def _candidates(kind: str, schema: Schema) -> Iterable[str]:
    """Values that may have been meant."""
    if kind == "timezone":
        from zoneinfo import available_timezones  # it reads a folder, so import it only when needed

        return sorted(available_timezones())
    alternatives = [resolve(schema), *schema.get("anyOf", ())]
    return [value for one in alternatives for value in one.get("enum", ()) if isinstance(value, str)]


def suggestion(found: Any, candidates: Iterable[str]) -> str:
    """`, did you mean …?` with the most similar word, or nothing."""
    words = {word.lower(): word for word in candidates}
    wanted = _MEANT.get(found.lower(), found.lower()) if isinstance(found, str) else ""
    close = get_close_matches(wanted, words, n=1)
    return f", did you mean {words[close[0]]}?" if close else ""


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message for an unknown key."""
    known = list(known)
    return f"unknown key{suggestion(key, known) or f', expected {either(known)}'}"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for an unknown name."""
    known = list(known)
    return f"no {kind} {shown(name)}{suggestion(name, known) or f', expected {either(known)}'}"


def expectation(schema: Schema) -> str:
    """What a value has to be, in words."""
    inner = resolve(schema)
    null = " or null" if {"type": "null"} in schema.get("anyOf", ()) else ""
    return f"{_expectation(inner)}{null}"


def _expectation(schema: Schema) -> str:
    if "enum" in schema or "const" in schema:
        return either(schema.get("enum") or [schema["const"]])
    if len(options := [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]) > 1:
        return " or ".join(_expectation(resolve(option)) for option in options)
    match schema.get("type"):
        case "integer":
            return f"a whole number{_bounds(schema)}"
        case "number":
            return f"a number{_bounds(schema)}"
        case "string":
            return "non-empty text" if schema.get("minLength") else "text"
        case "boolean":
            return "true or false"
        case "object" if "minProperties" in schema or schema.get("additionalProperties") is True:
            return "a mapping from keys, as in train.inner.lr"
        case "array" if "prefixItems" in schema:
            return "a list of two numbers"  # a range: the only fixed-length list
        case "array" if not schema["items"]:
            return f"a list of {schema.get('minItems', 0)} or more values"
        case "array":
            number = _expectation(schema["items"]).removeprefix("a ").replace("number", "numbers", 1)
            return f"a list of one or more {number}" if schema.get("minItems") else f"a list of {number}"
    if key := kind_key(schema):
        return f"a mapping with the key {key} ({either(kinds(schema))})"
    if "properties" not in schema:
        return "a mapping from names to mappings"  # the variants of the test tasks: the one mapping whose names the user chooses
    return f"a mapping with keys such as {', '.join(list(schema['properties'])[:4])}"


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if schema.get("type") == "integer" and "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - 1
    if low is not None and high is not None and high != MOST:
        return f" from {low} to {high}"
    bounds = [f" of at least {low}"] if low is not None else []
    bounds += [f" greater than {schema['exclusiveMinimum']}"] if "exclusiveMinimum" in schema else []
    bounds += [f" less than {schema['exclusiveMaximum']}"] if "exclusiveMaximum" in schema and high is None else []
    return " and".join(bounds)


def either(options: Iterable[Any], word: str = "or") -> str:
    """`a, b or c`; only the first ones of very many."""
    *most, last = [str(option) for option in options]
    if len(most) >= _MOST_NAMED:
        most, last = most[: _MOST_NAMED - 1], "others"
    return f"{', '.join(most)} {word} {last}" if most else last


def _follow(location: tuple[int | str, ...]) -> tuple[Path, Schema, Schema]:
    """The path of a pydantic location (which also contains a tag for each choice), its schema, and the schema of its block."""
    path: list[int | str] = []
    schema: Schema = models_schema()
    around: Mapping[str, Any] = schema
    parts = iter(location)
    for part in parts:
        path.append(part)
        around = resolve(schema)
        if isinstance(part, int):
            schema = around["prefixItems"][part] if "prefixItems" in around else around["items"]
        else:
            schema = around.get("properties", {}).get(part) or member_of(around)
        choice = kinds(resolve(schema))
        if choice and (tag := next(parts, None)) is not None:
            schema = choice[str(tag)]
    return tuple(path), schema, dict(around)


def _find(node: Node, path: Path) -> Node | None:
    for part in path:
        if isinstance(part, int):
            if not isinstance(node.value, list) or part >= len(node.value):
                return None
            node = node.value[part]
        elif part in node.entries:
            node = node.entries[part].node
        else:
            return None
    return node
