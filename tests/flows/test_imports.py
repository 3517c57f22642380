"""Imports go one way, in no circle: also those inside functions and those for type checkers alone."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {"metaopt_core": {"prefect", "flows", "tasks"}, "tasks": {"flows"}, "flows": set[str]()}

LAYERS = (
    {"tracking", "reporting"},
    {"pipeline"},
    {"evaluation"},
    {"methods"},
    {"training"},
    {"meta"},
    {"networks"},
    {"kernels"},
    {"distributions"},
    {"spec"},
    {"errors", "progress"},
)
"""The packages and modules of `metaopt_core`: each imports those of lower layers alone.

`spec.components` finds distributions, methods and metrics by looking into their packages. It names the packages and none of what is
in them, and no import statement leads there.
"""

Graph = Mapping[str, set[str]]
"""Module → the modules that it imports."""


def _modules(root: Path, *packages: str) -> dict[str, Path]:
    found = {}
    for path in (path for package in packages for path in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imported(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name in it) of every import statement, wherever it stands; no name where the module is imported as a whole."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: a relative import"
            yield from ((node.module, alias.name) for alias in node.names)


def _graph(root: Path, *packages: str) -> Graph:
    """`from package import module` is an import of the module; of what a package defines, one of the package."""
    modules = _modules(root, *packages)
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for importer, path in modules.items():
        for module, name in _imported(path):
            found = f"{module}.{name}" if f"{module}.{name}" in modules else module
            if found in modules:
                graph[importer].add(found)
    return graph


def _circle(graph: Graph) -> list[str]:
    """The modules of a circle of imports, if there is one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _rooms(graph: Graph) -> Graph:
    """The same between the packages and modules of metaopt_core."""
    rooms: dict[str, set[str]] = {}
    for importer, imported in graph.items():
        _, *inside = importer.split(".")
        if inside:
            found = {module.split(".")[1] for module in imported if "." in module}
            rooms.setdefault(inside[0], set()).update(found - {inside[0]})
    return rooms


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package: str) -> None:
    for name, path in _modules(ROOT, package).items():
        imported = {module.split(".")[0] for module, _ in _imported(path)}
        assert not imported & FORBIDDEN[package], name


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = _graph(ROOT, *FORBIDDEN)
    assert len(graph) > 100
    assert not _circle(graph)


def test_no_packages_import_each_other_in_a_circle() -> None:
    assert not _circle(_rooms(_graph(ROOT, "metaopt_core")))


def test_every_package_imports_those_of_lower_layers_alone() -> None:
    rooms = _rooms(_graph(ROOT, "metaopt_core"))
    layer = {name: place for place, names in enumerate(LAYERS) for name in names}
    assert rooms.keys() == layer.keys()
    upward = [(importer, name) for importer, imported in rooms.items() for name in imported if layer[name] <= layer[importer]]
    assert not upward


@pytest.mark.parametrize(
    "way_back",
    [
        "import house.attic.roof",
        "from house.attic.roof import tile",
        "from house.attic import roof",
        "def build():\n    from house.attic import roof",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.attic.roof import tile",
    ],
)
def test_a_circle_is_seen_wherever_the_import_stands(way_back: str, tmp_path: Path) -> None:
    files = {"cellar/floor.py": "stone = 1", "attic/roof.py": "from house.cellar.floor import stone\ntile = stone"}
    for name in ("__init__.py", "cellar/__init__.py", "attic/__init__.py", *files):
        (tmp_path / "house" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "house" / name).write_text(files.get(name, ""))
    graph = _graph(tmp_path, "house")
    assert not _circle(graph)
    assert _rooms(graph) == {"attic": {"cellar"}, "cellar": set()}
    (tmp_path / "house/cellar/floor.py").write_text(f"{way_back}\n")
    assert set(_circle(_graph(tmp_path, "house"))) == {"house.attic.roof", "house.cellar.floor"}
    assert set(_circle(_rooms(_graph(tmp_path, "house")))) == {"attic", "cellar"}
