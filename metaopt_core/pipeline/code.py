"""The code that a stage's result depends on, found without importing it.

From a stage's entry points the search follows the names that are mentioned on the way: functions, classes, the methods of those
classes, assignments, in all modules of ours (`normal_form` says what of them counts). So a stage depends only on the part of
a shared module that it uses, and additions beside that part don't affect it.

Names that are built while a program runs can't be followed; components that are looked up by name are listed in the table of
stages.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from metaopt_core.pipeline.normal_form import Piece, pieces_of, whole
from metaopt_core.spec import user_source

ROOT = Path(__file__).resolve().parents[2]  # the folder that holds the packages
PACKAGES = user_source.PACKAGES

NOT_FOLLOWED = (
    "metaopt_core.progress",
    "metaopt_core.errors",
    "metaopt_core.pipeline",
    "metaopt_core.reporting",
    "metaopt_core.spec.components",
    "metaopt_core.spec.user_source",
    "metaopt_core.tracking",
    "tasks.artifacts",
    "tasks.retrying",
)
"""Modules and packages whose code changes no result: they inform, draw, keep outputs and records, or look up code, which is then
counted itself. So are all modules named `figures`."""

_CALLED_BY_NOBODY = {"ABC", "BaseModel", "Enum", "Exception", "Generic", "NamedTuple", "Protocol", "StrEnum", "TypedDict", "object"}
_FILE = re.compile(r"\w[\w.-]*")
_C_COMMENT = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|//[^\n]*|/\*.*?\*/""", re.DOTALL)


def digests(entries: Iterable[str], follows: Iterable[str] = (), root: Path = ROOT) -> dict[str, str]:
    """SHA-256 of the relevant part of every file that the entries lead to, by its path below the root.

    entries: `module:name`, or `module` for all that it defines. follows: members of NOT_FOLLOWED to follow anyway. A file or folder
    beside a module that the module names (kernels.c, templates) belongs to it.
    """
    found = {}
    for path, pieces in _search(entries, follows, root).items():
        found[path] = _sha256("\n".join(piece.text for piece in pieces))
        named = {path.with_name(word) for piece in pieces for word in piece.words if _FILE.fullmatch(word)}
        for file in (file for place in named for file in (place.rglob("*") if place.is_dir() else [place])):
            if file.is_file() and file.suffix not in {".py", ".pyc"}:
                found[file] = _digest_of_text(file)
    return {path.relative_to(root).as_posix(): digest for path, digest in sorted(found.items())}


def definitions(entries: Iterable[str], follows: Iterable[str] = (), root: Path = ROOT) -> dict[str, set[str]]:
    """What `digests` covers: file → the functions, classes, methods and variables, as Python names them."""
    found = _search(entries, follows, root)
    return {path.relative_to(root).as_posix(): {piece.qualname for piece in pieces} for path, pieces in found.items()}


def digest_of(path: Path) -> str:
    """SHA-256 of a user's Python file, all of which counts except comments, docstrings and formatting."""
    return _sha256(whole(path))


def _digest_of_text(path: Path) -> str:
    """SHA-256 of a file that is not Python; of a C file without comments and formatting."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".c":
        text = " ".join(_C_COMMENT.sub(lambda match: match[1] or " ", text).split())
    return _sha256(text)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _search(entries: Iterable[str], follows: Iterable[str], root: Path) -> dict[Path, list[Piece]]:
    search = _Search(root, tuple(name for name in NOT_FOLLOWED if name not in set(follows)))
    for entry in entries:
        module, _, name = entry.partition(":")
        search.need(module, name) if name else search.need_all(module)
    return search.found()


@cache
def _modules_below(root: Path) -> Mapping[str, Path]:
    """The files of our packages by the names of their modules."""
    found = {}
    for path in (path for package in PACKAGES for path in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


class _Search:
    """Finds the pieces that entries lead to. skipped: modules and packages not to follow."""

    def __init__(self, root: Path, skipped: tuple[str, ...]):
        self._root, self._skipped = root, skipped
        self._files = _modules_below(root)
        self._loaded: dict[str, Mapping[str, list[Piece]]] = {}
        self._counted: dict[str, set[int]] = {}
        self._pending: list[tuple[str, Piece]] = []
        self._typed: set[tuple[str, str]] = set()
        self._attributes: set[str] = set()
        self._methods: list[tuple[str, Piece, Piece]] = []  # with their classes; methods count once they are mentioned

    def load(self, module: str) -> Mapping[str, list[Piece]]:
        """The pieces of one of our modules, by name (methods by class and name); empty for a module that is not followed."""
        if module in self._loaded:
            return self._loaded[module]
        self._loaded[module] = {}
        if module in self._files and not self._is_skipped(module):
            self.load(module.rpartition(".")[0])
            found: dict[str, list[Piece]] = {}
            for piece in self._pieces(module):
                found.setdefault(piece.owner or piece.name or "", []).append(piece)
                if piece.always and piece.owner is None:
                    self._count(module, piece)
            self._loaded[module] = found
        return self._loaded[module]

    def need(self, module: str, name: str) -> None:
        """Count what a module defines under a name, which may be a module itself."""
        for piece in self.load(module).get(name, ()):
            if piece.owner is None:
                self._count(module, piece)
        if (inner := f"{module}.{name}") in self._files:
            self.load(inner)

    def need_all(self, module: str) -> None:
        for pieces in self.load(module).values():
            for piece in pieces:
                self._count(module, piece)

    def found(self) -> dict[Path, list[Piece]]:
        """All pieces that count, once no new name turns up."""
        while self._pending:
            while self._pending:
                self._follow(*self._pending.pop())
            for module, method, of in self._methods:
                if method.name in self._attributes:
                    self._count(module, of)
                    self._count(module, method)
        return {
            self._files[module]: [piece for piece in self._pieces(module) if id(piece) in counted]
            for module, counted in self._counted.items()
        }

    def _pieces(self, module: str) -> tuple[Piece, ...]:
        return pieces_of(self._files[module], module)

    def _count(self, module: str, piece: Piece) -> None:
        if piece.target and self._is_skipped(self._module_of(*piece.target)):
            return
        counted = self._counted.setdefault(module, set())
        if id(piece) not in counted:
            counted.add(id(piece))
            self._pending.append((module, piece))

    def _follow(self, module: str, piece: Piece) -> None:
        for name in piece.names:
            self.need(module, name)
        for base, attribute in piece.qualified:
            self.need(module, base)
            target = self._module_named(piece, base)
            if target is None:
                self._attributes.add(attribute)
            else:
                self.need(target, attribute)
        self._attributes |= piece.attributes | piece.words
        for bound, (source, name) in piece.imports.items():
            if target := self._module_named(piece, bound):
                self.load(target)
                if bound in piece.names:  # passed on as a whole
                    self.need_all(target)
            elif name:
                self.need(source, name)
        if piece.target:
            self.need(*piece.target)
        for name in piece.typed:
            self._need_class(module, name)
        if piece.kind == "class":
            self._follow_class(module, piece)

    def _follow_class(self, module: str, piece: Piece) -> None:
        is_open = self._is_open(module, piece)
        for method in self.load(module)[piece.name or ""]:
            if method.owner:
                self._methods.append((module, method, piece))
                if is_open or method.always:
                    self._count(module, method)

    def _need_class(self, module: str, name: str) -> None:
        """Count the class that a name in a type hint leads to."""
        if (module, name) in self._typed:
            return
        self._typed.add((module, name))
        for piece in self.load(module).get(name, ()):
            if piece.owner is not None:
                continue
            if piece.kind == "class" and (piece.says or self._is_open(module, piece)):
                self._count(module, piece)
            elif piece.kind == "class":  # at most its methods, which may be mentioned
                self._methods += [(module, method, piece) for method in self.load(module)[name] if method.owner]
                for inner in piece.typed | {base.partition("[")[0] for base in piece.bases}:
                    self._need_class(module, inner)
            elif piece.target:
                self._need_class(*piece.target)
            elif piece.kind == "other":
                for inner in piece.names | piece.typed | {attribute for _, attribute in piece.qualified}:
                    self._need_class(module, inner)

    def _is_open(self, module: str, piece: Piece) -> bool:
        """Whether a class has a base class from a library, which may call any of its methods."""
        for base in piece.bases:
            name = base.partition("[")[0]
            if name.rpartition(".")[2] not in _CALLED_BY_NOBODY and self._is_foreign(module, name):
                return True
        return False

    def _is_foreign(self, module: str, name: str) -> bool:
        for piece in self.load(module).get(name, ()):
            if piece.kind == "class":
                return self._is_open(module, piece)
            if piece.target:
                return piece.target[1] not in _CALLED_BY_NOBODY and self._is_foreign(*piece.target)
        return True

    def _module_named(self, piece: Piece, bound: str) -> str | None:
        """The module of ours that a name refers to in a piece, if any."""
        if bound not in piece.imports:
            return None
        dotted = ".".join(filter(None, piece.imports[bound]))
        return dotted if dotted in self._files else None

    def _module_of(self, module: str, name: str) -> str:
        """The module that an import names or imports from."""
        return inner if (inner := f"{module}.{name}") in self._files else module

    def _is_skipped(self, module: str) -> bool:
        return module.endswith(".figures") or any(module == name or module.startswith(f"{name}.") for name in self._skipped)
