"""The pipelines files that a command reads: the one that it names, and those that it includes.

`include: ../pipelines.yaml` makes the pipelines of another file available in this one: they can be extended, and run by name. Every
name is defined once. A path is relative to the file that contains it.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from metaopt_core.errors import UserError
from metaopt_core.spec import explain
from metaopt_core.spec.document import BROKEN, MOST_VALUES, Entry, Mistake, Node, Place, printable, read_file, shown
from metaopt_core.spec.paths import expanded, real
from metaopt_core.spec.schema import models_schema

NAME = re.compile(models_schema()["properties"]["name"]["pattern"])
_NAME_RULE = "lower-case letters, digits, . _ and -, a letter or digit first"
_KEYS = ("pipelines", "include")
_LARGEST = 2**18  # bytes: twenty times the shipped file
_MOST_FILES = 50


@dataclass
class Files:
    """The content of a file and all its includes.

    blocks: name → block of every pipeline, those of the file itself first.
    folders: each file, as messages name it, and the folder that its relative paths start from. The file itself is the first.
    whole: all files could be read; otherwise a pipeline that seems to be missing may exist.
    """

    blocks: dict[str, Entry] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    whole: bool = True
    mistakes: list[Mistake] = field(default_factory=list)


def read(path: Path) -> Files:
    """Read a file and what it includes. Mistakes are collected, not raised."""
    reading = _Reading()
    reading.read(path, str(path), None, {})
    return reading.files


@dataclass
class _Reading:
    files: Files = field(default_factory=Files)
    names: dict[Path, str] = field(default_factory=dict)  # real path of every file begun → its name in messages
    values: int = 0

    def read(self, path: Path, name: str, included: Place | None, around: dict[Path, str]) -> None:
        """included: the place of the include. around: the files that are being read, by real path."""
        target = real(path)
        self.names[target] = name
        self.files.folders[name] = Path(name).absolute().parent
        try:
            root, mistakes = read_file(_text(path, name), name, MOST_VALUES - self.values)
        except _UnreadableError as error:
            root, mistakes = None, [error.mistake(name, included)]
        self.files.mistakes += mistakes
        if root is None:
            self.files.whole = False
            return
        self.values += root.size
        own = self._own_blocks(root, Place(name, 1, 1))
        if included is None:
            self.files.blocks |= own
        for node in self._includes(root):
            self._include(path, node, around | {target: name})
        for pipeline, entry in own.items():
            first = self.files.blocks.setdefault(pipeline, entry)
            if first is not entry:
                self._twice(pipeline, first, entry)

    def _include(self, path: Path, node: Node, around: dict[Path, str]) -> None:
        place = node.place
        try:
            inner = path.parent / expanded(node.value)
        except UserError as error:
            self.files.whole = False
            self._report(place, "include", f"{node.describe()}: {error}")
            return
        target = real(inner)
        if target in around:
            files = list(around.values())[list(around).index(target) :]
            circle = " includes ".join([*files, files[0]])
            self._report(place, "include", f"a circle ({circle}), expected a file that does not include this one")
        elif target not in self.names:
            if len(self.names) == _MOST_FILES:
                self.files.whole = False
                self._report(place, "include", f"more than {_MOST_FILES} files, expected fewer")
                return
            short = os.path.normpath(inner)
            self.read(inner, short if real(Path(short)) == target else str(inner), place, around)

    def _includes(self, root: Node) -> Iterator[Node]:
        """The node of each path that a file includes."""
        if "include" not in root.entries:
            return
        node = root.entries["include"].node
        paths = node.value if isinstance(node.value, list) else [node]
        if not paths:
            self._report(node.place, "include", f"expected a path or a list of paths, found {node.describe()}")
        for one in paths:
            if isinstance(one.value, str) and one.value:
                yield one
            elif one.value is not BROKEN:
                self._report(one.place, "include", f"expected a path or a list of paths, found {one.describe()}")

    def _own_blocks(self, root: Node, start: Place) -> dict[str, Entry]:
        """The entries below `pipelines`: name → block."""
        if root.value is None:
            self._report(start, "", "the file is empty, expected a mapping with the key pipelines")
        elif not isinstance(root.value, dict):
            if root.value is not BROKEN:
                self._report(root.place, "", f"expected a mapping with the key pipelines, found {root.describe()}")
        else:
            unknown = {key: explain.unknown_key(key, _KEYS) for key in root.entries if key not in _KEYS}
            for key, message in unknown.items():
                self._report(root.entries[key].key, shown(key), message)
            meant = any("did you mean" in message for message in unknown.values())
            if root.entries.keys().isdisjoint(_KEYS) and not meant:
                self._report(root.place, "pipelines", "missing, expected a mapping from names to pipelines")
        blocks = root.entries.get("pipelines", Entry(start, Node(start, BROKEN))).node
        if blocks.value is not BROKEN and not blocks.entries:
            self._report(blocks.place, "pipelines", f"expected a mapping from names to pipelines, found {blocks.describe()}")
        for name, entry in blocks.entries.items():
            if not NAME.fullmatch(name):
                self._report(entry.key, shown(name), f'expected a name of {_NAME_RULE}, found "{shown(name)}"')
            if not isinstance(entry.node.value, dict) and entry.node.value is not BROKEN:
                message = f"expected a mapping with keys such as extends, generate, train, found {entry.node.describe()}"
                self._report(entry.node.place, shown(name), message)
        return blocks.entries

    def _twice(self, name: str, first: Entry, second: Entry) -> None:
        """Report a name that two files define, in the including file, where it can be changed."""
        main = next(iter(self.files.folders))
        here, there = (first, second) if first.key.source == main else (second, first)
        message = f"also defined in {there.key}, expected another name: with `extends: {name}` it inherits those settings"
        self._report(here.key, shown(name), message)

    def _report(self, place: Place, path: str, message: str) -> None:
        self.files.mistakes.append(Mistake(place, path, message))


class _UnreadableError(Exception):
    """A file can't be read as text, and why; place: where in the file, if it was readable up to there."""

    def __init__(self, message: str, place: Place | None = None) -> None:
        super().__init__(message)
        self.place = place

    def mistake(self, name: str, included: Place | None) -> Mistake:
        if included and not self.place:
            return Mistake(included, "include", f"{printable(name)}: {self}")
        hint = " (-f FILE names another one)" if isinstance(self.__cause__, FileNotFoundError) else ""
        return Mistake(self.place or Place(name), "", f"{self}{hint}")


def _text(path: Path, name: str) -> str:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise _UnreadableError(f"a directory, expected a file, such as {printable(str(Path(name) / 'pipelines.yaml'))}")
        if not stat.S_ISREG(mode):
            raise _UnreadableError("a pipe or a device, expected a pipelines file")
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except FileNotFoundError as error:
        raise _UnreadableError("no such file, expected a pipelines file") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise _UnreadableError(f"cannot be read ({why}), expected a pipelines file") from None
    if len(data) > _LARGEST:
        raise _UnreadableError(f"larger than {_LARGEST // 1024} KB, expected a smaller file: it can `include` others")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        place = Place(name, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
        raise _UnreadableError(f"byte 0x{data[error.start]:02X} is not UTF-8, expected text in UTF-8", place) from None
