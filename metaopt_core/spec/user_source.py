"""Where the source of a custom module is: found without importing it, so that planning is quick and runs none of it.

Modules are looked up on Python's path, to whose end a run adds the folder of the pipelines file.
"""

import ast
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from metaopt_core.errors import UserError
from metaopt_core.spec.paths import real

NETWORK = "train.model"
"""The block of the spec that names a custom network."""

PACKAGES = ("metaopt_core", "tasks")
"""Ours, whose code counts by what is used of it (`metaopt_core.pipeline.code`)."""

_BY_VERSION = frozenset({"torch"})
"""Libraries that a spec may name something of, and that are too large to be read."""


def beside(pipelines_file: Path) -> Path:
    """The folder of a pipelines file; for a file that a sweep wrote, that of the sweep's own pipelines file."""
    folder = real(pipelines_file).parent
    return next((path.parent for path in (folder, *folder.parents) if path.name == ".metaopt"), folder)


def look_in(folder: Path) -> None:
    """Append a folder to Python's path."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def sources(path: str, place: str = NETWORK) -> dict[str, Path]:
    """The files of an import path (`module:Class`) and of what it imports, by their names; see `source`."""
    return dict(source(path, place).files)


def source(path: str, place: str = NETWORK) -> "Needed":
    """What an import path (`module:Class`) leads to.

    Of installed libraries only the top-level package that it is in counts by its files. place: the block of the spec that names
    it. Raises UserError if there is no such module, or one of the files is not Python.
    """
    with _at(place):
        module = path.partition(":")[0]
        top, root = module.partition(".")[0], _root(path)
        file = _main_file(path)
        if top in _BY_VERSION and _installed(root):
            return Needed({file.relative_to(root).as_posix(): file}, frozenset({top}))
        return _needed([module], {top: root}, PACKAGES)


def check_class(path: str, arguments: Iterable[str], given: Iterable[str], place: str = NETWORK) -> None:
    """Check the source of a class, without running it, for mistakes that would fail later.

    arguments: names in the spec; given: those that we pass if the class takes them. place: the block of the spec that names it. A
    class that is imported or built in its module can't be checked. Raises UserError.
    """
    with _at(place):
        _check_class(path, arguments, given)


def _check_class(path: str, arguments: Iterable[str], given: Iterable[str]) -> None:
    module, _, name = path.partition(":")
    tree = _tree(_main_file(path))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if name not in classes:
        bound = _bound(tree)
        if name not in bound and "*" not in bound:
            known = f"; its classes are {', '.join(classes)}" if classes else ""
            raise UserError(f"path: {module} has no {name}: expected module:Class, as in mypackage.nets:Net{known}")
        return
    init = next((one for one in classes[name].body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
    if init is None or classes[name].decorator_list or init.decorator_list or init.args.kwarg:
        return
    positional, keyword = init.args.posonlyargs + init.args.args, init.args.kwonlyargs
    takes = [one.arg for one in positional[1:] + keyword]
    if unknown := [one for one in arguments if one not in takes]:
        own = [one for one in takes if one not in set(given)]
        expected = f"one of {', '.join(own)}" if own else "no arguments"
        raise UserError(f"arguments.{unknown[0]}: {path} takes no such argument: expected {expected}")
    optional = {one.arg for one in positional[len(positional) - len(init.args.defaults) :]}
    optional |= {one.arg for one, default in zip(keyword, init.args.kw_defaults, strict=True) if default is not None}
    if missing := [one for one in takes if one not in optional | set(arguments) | set(given)]:
        raise UserError(f"arguments.{missing[0]}: missing, and {path} needs it: expected a value")


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Says in which block of the spec it is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}.{error}") from None


def raised(error: Exception) -> str:
    """An exception of the user's code in one line, with the line of source that raised it."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and "site-packages" not in frame.filename and "importlib" not in frame.filename
    ]
    frames = [frame for frame in frames if Path(__file__).parents[1] not in Path(frame.filename).parents]
    place = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    message = (str(error).strip().splitlines() or [""])[0]
    return f"{place}{type(error).__name__}: {message}"


def _main_file(path: str) -> Path:
    """The file of the module itself."""
    file = _file(path.partition(":")[0], _root(path))
    if file is None:
        raise _missing(path.partition(":")[0])
    return file


def _bound(tree: ast.Module) -> set[str]:
    """The names that a module may bind, anywhere in it."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    imported = [alias for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    return names | {alias.asname or alias.name for alias in imported}


@dataclass(frozen=True)
class Needed:
    """What modules need to be importable elsewhere.

    files: those that are not installed, by their paths below the folder from which they are imported. libraries: the top-level
    modules that have to be installed. ours: import paths of what they import of our packages, where that counts by what is used.
    """

    files: Mapping[str, Path]
    libraries: frozenset[str]
    ours: frozenset[str] = frozenset()


def needed(modules: Iterable[str], known: Mapping[str, Path]) -> Needed:
    """The files of modules and of everything that they import, wherever it is, and the installed libraries that these import.

    known: top-level packages whose files count although they may be installed, and the folder that each is in. Imports only
    for a type checker do not count. Raises UserError for a file that is not Python.
    """
    with _at(NETWORK):
        return _needed(modules, known)


def _needed(modules: Iterable[str], known: Mapping[str, Path], by_use: Container[str] = ()) -> Needed:
    importlib.invalidate_caches()  # a file may have been written since
    files: dict[str, Path] = {}
    libraries: set[str] = set()
    ours: set[str] = set()
    pending = list(modules)
    while pending:
        name = pending.pop()
        top = name.partition(".")[0]
        root = known.get(top) or _folder_of(top)
        if root is None:
            libraries |= {top} - sys.stdlib_module_names
            continue
        file = _file(name, root)
        if file is not None and (key := file.relative_to(root).as_posix()) not in files:
            files[key] = file
            pending += _around(name)
            for module, inner in _imported(file, name if file.name == "__init__.py" else name.rpartition(".")[0]):
                if module.partition(".")[0] in by_use:
                    ours.add(f"{module}:{inner}" if inner else module)
                else:
                    pending += [module, f"{module}.{inner}"] if inner else [module]
    return Needed(dict(sorted(files.items())), frozenset(libraries), frozenset(ours))


def _folder_of(top: str) -> Path | None:
    """The folder of the user's top-level module or package; none if it is installed or missing."""
    if top in sys.stdlib_module_names or (spec := _spec(top)) is None:
        return None
    places = list(spec.submodule_search_locations or ([spec.origin] if spec.origin else []))
    folder = Path(places[0]).absolute().parent if places else None
    return None if folder is None or _installed(folder) else folder


def _around(module: str) -> list[str]:
    """The packages that a module is in."""
    parts = module.split(".")[:-1]
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _root(path: str) -> Path:
    """The folder that holds the module, or its outermost package."""
    importlib.invalidate_caches()  # a file may have been written since
    module = path.partition(":")[0]
    top = module.partition(".")[0]
    spec = _spec(top)
    if spec is None:
        raise _missing(module)
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).absolute().parent
    if not spec.origin or not spec.origin.endswith(".py"):
        raise _missing(module)
    return Path(spec.origin).absolute().parent


def _missing(module: str) -> UserError:
    return UserError(
        f"path: no module {module} in {sys.path[-1]} or elsewhere on Python's path: expected module:Class, as in mypackage.nets:Net"
    )


def _spec(top: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)
    except ValueError:  # it is the running script, which has none
        return None


def _file(name: str, root: Path) -> Path | None:
    """The file of a module, if it is below the root; a link is not followed, so that it keeps its name."""
    search, spec = [str(root)], None
    for part in name.split("."):
        spec = PathFinder.find_spec(part, search)
        if spec is None:
            return None
        search = list(spec.submodule_search_locations or [])
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).absolute()


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"path: {file}: can't be read ({error.strerror}): expected a readable file") from None


def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(_bytes(file))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two: expressions nested too deeply
        line = getattr(error, "lineno", None)
        raise UserError(f"path: {file}{f':{line}' if line else ''}: not valid Python: {error}") from None


def _installed(root: Path) -> bool:
    return root.name in {"site-packages", "dist-packages"}


def _imported(file: Path, package: str) -> Iterator[tuple[str, str]]:
    """What a file imports: the full name of a module, and the name of what is imported from it, which may be a module, or none."""
    pending: list[ast.AST] = [_tree(file)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*base, node.module] if node.module else base)
            yield from ((start, alias.name) for alias in node.names)
