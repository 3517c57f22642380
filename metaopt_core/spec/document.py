"""YAML text as a tree in which every key and every value knows its place, so that a message can point to a mistake.

Scalars follow YAML 1.2's core schema: `1e-3` is a number, `on`, `no`, `12:30` and `2026-01-01` are text, `010` is ten. Aliases,
merge keys and tags are refused: pipelines share settings through `extends`, and a file has no hidden meaning.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from metaopt_core.spec.base import DEEPEST, unfit

MOST_VALUES = 10_000  # of a file with its includes: hundreds of pipelines, which take half a second to read
_LONGEST = 60  # characters of a found value in a message
_LONGEST_PROBLEM = 120  # characters of PyYAML's own messages, which quote

_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL_OR_HEXADECIMAL = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = dict.fromkeys(("", "~", "null", "Null", "NULL")) | dict.fromkeys(("true", "True", "TRUE"), True)
_WORDS |= dict.fromkeys(("false", "False", "FALSE"), False)


@dataclass(frozen=True)
class Place:
    """Where something was written: a position (counted from 1) in a file, or a `--set` option of the command line."""

    source: str
    line: int | None = None
    column: int | None = None
    pipeline: str | None = None  # the pipeline whose block it is in

    def __str__(self) -> str:
        source = printable(self.source)
        return source if self.line is None else f"{source}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Mistake:
    """A mistake: its place, its key (dotted; empty for the file as a whole), and what is wrong and expected."""

    place: Place
    path: str
    message: str

    def __str__(self) -> str:
        return printable(": ".join(part for part in (str(self.place), self.path, self.message) if part))


class Broken:
    """The value of a node that was already reported; no model accepts it."""


BROKEN = Broken()


@dataclass(frozen=True)
class Node:
    """A scalar (`value` is None, bool, int, float or str), a list of nodes, or a mapping from keys to entries.

    text: a scalar as it was written, in quotes if it is a str.
    """

    place: Place
    value: Any
    text: str = ""

    @property
    def entries(self) -> dict[str, "Entry"]:
        """The entries of a mapping; none for any other node."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def size(self) -> int:
        """The number of values, including nested ones."""
        items: list[Node] = self.value if isinstance(self.value, list) else [entry.node for entry in self.entries.values()]
        return 1 + sum(item.size for item in items)

    def plain(self) -> Any:
        """The same as plain dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: entry.node.plain() for key, entry in self.value.items()}
        return [item.plain() for item in self.value] if isinstance(self.value, list) else self.value

    def describe(self) -> str:
        """The node in words, for an error message that says what was found."""
        match self.value:
            case {}:
                return f"a mapping with {shown(', '.join(self.value))}" if self.value else "an empty mapping"
            case list():
                if any(isinstance(item.value, dict) for item in self.value):
                    return "a list of mappings"
                text = f"[{', '.join(item.describe() for item in self.value[:_LONGEST])}]"
                return text if len(text) <= _LONGEST else f"a list of {len(self.value)} values"
            case _:
                return shown(self.text)


@dataclass(frozen=True)
class Entry:
    """A key's place, and its value."""

    key: Place
    node: Node


def scalar(text: str) -> bool | int | float | str | None:
    """The value of an unquoted scalar by YAML 1.2's core schema. Raises ValueError for an integer of thousands of digits."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OCTAL_OR_HEXADECIMAL.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(re.sub(r"\.([a-zA-Z])", r"\1", text))  # Python writes .inf and .nan without the dot
    return text


def read_file(text: str, name: str, most: int = MOST_VALUES) -> tuple[Node | None, list[Mistake]]:
    """The tree of a pipelines file, or none if it is not YAML, and the mistakes that show without knowing what keys mean.

    most: how many values it may have.
    """
    reader = _Reader(name, is_file=True, most=most)
    return reader.read(text), reader.mistakes


def read_value(text: str, source: str, path: tuple[str, ...]) -> tuple[Node | None, list[Mistake]]:
    """The same for the value of a `--set` option; `source` is the whole option and `path` its key."""
    reader = _Reader(source, is_file=False)
    return reader.read(text, path), reader.mistakes


class _TooMuchError(Exception):
    """The file is larger or deeper than any spec needs to be, so reading stops."""

    def __init__(self, place: Place, message: str) -> None:
        self.place, self.message = place, message


@dataclass
class _Reader:
    source: str
    is_file: bool
    most: int = MOST_VALUES
    mistakes: list[Mistake] = field(default_factory=list)
    values: int = 0

    def read(self, text: str, path: tuple[str, ...] = ()) -> Node | None:
        try:
            events = yaml.parse(text, Loader=yaml.SafeLoader)
            first = next(event for event in events if not isinstance(event, (yaml.StreamStartEvent, yaml.DocumentStartEvent)))
            root = (
                Node(Place(self.source), None, "nothing")
                if isinstance(first, yaml.StreamEndEvent)
                else self._node(first, events, path, 0)
            )
            second = next((event for event in events if isinstance(event, yaml.DocumentStartEvent)), None)
            if second is not None:
                self._report(self._place(second, ()), (), "a second document begins here, expected one")
            return root
        except yaml.reader.ReaderError as error:
            before = text[: error.position]
            line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
            character = f"U+{error.character:04X}" if isinstance(error.character, int) else repr(error.character)
            place = Place(self.source, line, column) if self.is_file else Place(self.source)
            self._report(place, path, f"character {character} cannot stand in YAML, expected printable text")
        except _TooMuchError as error:
            self._report(error.place, path, error.message)
        except yaml.MarkedYAMLError as error:
            self._syntax_error(error, text, path)
        return None

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: tuple[str, ...], depth: int) -> Node:
        place = self._place(event, path)
        self._count(place, depth)
        match event:
            case yaml.AliasEvent():
                return self._broken(
                    place, path, f"*{shown(str(event.anchor))} is an alias, expected the value itself (`extends` shares settings)"
                )
            case yaml.ScalarEvent():
                node = self._scalar(event, place, path)
            case yaml.SequenceStartEvent():
                items: list[Node] = []
                while not isinstance(item := next(events), yaml.SequenceEndEvent):
                    items.append(self._node(item, events, (*path, f"[{len(items)}]"), depth + 1))
                node = Node(place, items)
            case _:
                node = Node(place, self._mapping(events, path, depth))
        if tag := getattr(event, "tag", None):
            return self._broken(place, path, f"tag {_short(tag)}, expected a plain value without a tag")
        return node

    def _count(self, place: Place, depth: int) -> None:
        self.values += 1
        if depth > DEEPEST:
            raise _TooMuchError(place, f"more than {DEEPEST} levels of nesting, expected a few")
        if self.values > self.most:
            raise _TooMuchError(
                place, f"more than {MOST_VALUES:,} values in all, expected fewer: -f FILE names one of several files"
            )

    def _scalar(self, event: yaml.ScalarEvent, place: Place, path: tuple[str, ...]) -> Node:
        text = _joined(event.value)
        if wrong := unfit(text):  # only through an escape: YAML refuses these characters themselves
            return self._broken(place, path, wrong)
        if event.style:
            return Node(place, text, f'"{text}"')
        try:
            value = scalar(event.value)
        except ValueError:
            return self._broken(place, path, f"found a number of {len(event.value)} digits, expected a smaller one")
        return Node(place, value, f'"{text}"' if isinstance(value, str) else text or "nothing")

    def _mapping(self, events: Iterator[yaml.Event], path: tuple[str, ...], depth: int) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self._node(event, events, path, depth + 1)
                self._report(self._place(event, path), path, "a key that is not plain text, expected a name")
                self._node(next(events), events, path, depth + 1)
                continue
            key = _joined(event.value)
            here = (*path, key)
            key_place = self._place(event, here)
            if wrong := unfit(key):
                self._report(key_place, here, wrong)
                self._skip(next(events), events, path, depth)
                continue
            if key == "<<" and not event.style:
                self._report(key_place, here, "merge keys are not read, expected `extends: PIPELINE` in the pipeline's block")
                self._skip(next(events), events, path, depth)
                continue
            node = self._node(next(events), events, here, depth + 1)
            if key in entries:
                first = entries[key].key
                at = f" in line {first.line}" if first.line is not None else ""
                self._report(key_place, here, f"duplicate key, expected it once: it is already set{at}")
            else:
                entries[key] = Entry(key_place, node)
        return entries

    def _skip(self, event: yaml.Event, events: Iterator[yaml.Event], path: tuple[str, ...], depth: int) -> None:
        inner = 0
        while True:
            self._count(self._place(event, path), depth + inner)
            inner += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if inner == 0:
                return
            event = next(events)

    def _place(self, event: yaml.Event, path: tuple[str, ...]) -> Place:
        if not self.is_file:
            return Place(self.source)
        assert event.start_mark is not None  # the parser gives every event one
        pipeline = path[1] if len(path) > 1 and path[0] == "pipelines" else None
        return Place(self.source, event.start_mark.line + 1, event.start_mark.column + 1, pipeline)

    def _report(self, place: Place, path: tuple[str, ...], message: str) -> None:
        shown = path[1:] if self.is_file and len(path) > 1 and path[0] == "pipelines" else path
        self.mistakes.append(Mistake(place, dotted(shown), message))

    def _broken(self, place: Place, path: tuple[str, ...], message: str) -> Node:
        self._report(place, path, message)
        return Node(place, BROKEN)

    def _syntax_error(self, error: yaml.MarkedYAMLError, text: str, path: tuple[str, ...]) -> None:
        message = _syntax_message(error)
        mark = error.context_mark if "is not closed" in message else error.problem_mark
        places = [(mark.line + 1, mark.column + 1)] if mark else [(1, 1)]
        if message == _TAB:  # YAML stops at the first one; the others that indent a line can be named as well
            indents = ((number, line[: len(line) - len(line.lstrip())]) for number, line in enumerate(text.split("\n"), 1))
            tabs = [(number, indent.index("\t") + 1) for number, indent in indents if "\t" in indent and indent.strip() == ""]
            places = sorted({*places, *tabs})
        for line, column in places:
            self._report(Place(self.source, line, column) if self.is_file else Place(self.source), path, message)


_TAB = "a tab, expected spaces"


def _syntax_message(error: yaml.MarkedYAMLError) -> str:
    """A plainer version of PyYAML's message, for the common mistakes."""
    problem, context = str(error.problem), str(error.context)
    if "'\\t' that cannot start" in problem:
        return _TAB
    if found := re.search(r"character '(.+)' that cannot start", problem):
        return f"a value cannot begin with {found[1]}, expected it between quotes"
    if "while scanning an alias" in context or "while scanning an anchor" in context:
        return "a value cannot begin with * or &, expected it between quotes"
    if "mapping values are not allowed" in problem:
        return "a `:` that does not fit, expected one `key: value` a line, in line with its block (text with `: ` between quotes)"
    if "could not find expected ':'" in problem:
        return "the key before this has no `:`, expected `key: value`"
    if "sequence entries are not allowed" in problem:
        return "a list begins in the line of its key, expected it in the next line, or as [a, b]"
    if "flow sequence" in context:
        return "the list is not closed, expected , or ]"
    if "flow mapping" in context:
        return "the mapping is not closed, expected , or }"
    if "quoted scalar" in context and "end of stream" in problem:
        return "the text is not closed, expected a quote at its end"
    if "expected the node content" in problem:
        return "nothing that can be a value, expected text, a number, [a, b] or {a: b}"
    if "expected <block end>" in problem:
        return "this does not line up with the lines above, expected the keys of a block in one column"
    return f"not YAML ({shown(' '.join(problem.split()), _LONGEST_PROBLEM)}), expected `key: value` lines"


def dotted(path: tuple[str | int, ...]) -> str:
    """`("model", "hidden", 0)` as `model.hidden[0]`."""
    parts = [f"[{part}]" if isinstance(part, int) else shown(part) for part in path]
    return ".".join(parts).replace(".[", "[")


def shown(text: str, longest: int = _LONGEST) -> str:
    """The user's text as messages show it: printable, on one line, and just long enough to find it."""
    return printable(text if len(text) <= longest else f"{text[: longest - 3]}…")


def printable(text: str) -> str:
    """The text with an escape for each character that a terminal can't show or would interpret."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _joined(text: str) -> str:
    """The text with each surrogate pair, as JSON escapes them, joined into one character."""
    if text.isprintable():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _short(tag: str) -> str:
    return shown(tag.replace("tag:yaml.org,2002:", "!!"))
