"""Imports go one way: flows → tasks → metaopt_core, and in no circle."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {"metaopt_core": {"prefect", "flows", "tasks"}, "tasks": {"flows"}, "flows": set()}


def _modules(package: str) -> dict[str, Path]:
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(path: Path, *, at_module_level: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_module_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package: str) -> None:
    for name, path in _modules(package).items():
        imported = {module.split(".")[0] for module in _imports(path)}
        assert not imported & FORBIDDEN[package], name


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {name: path for package in FORBIDDEN for name, path in _modules(package).items()}
    graph = {name: {found for found in _imports(path, at_module_level=True) if found in modules} for name, path in modules.items()}
    for name, imported in graph.items():  # `from package import module` names both; the package itself imports nothing
        imported.discard(name)
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)
