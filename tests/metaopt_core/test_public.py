"""The public interface of the library: complete, importable, and free until it is used."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import metaopt_core


def test_importing_the_library_imports_no_torch() -> None:
    script = "import sys, metaopt_core; dir(metaopt_core); sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", metaopt_core.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(metaopt_core, name) is not None
    assert name in dir(metaopt_core)


def test_type_checkers_see_the_names_that_there_are() -> None:
    source = ast.parse(Path(metaopt_core.__file__).read_text())
    [guarded] = [node for node in source.body if isinstance(node, ast.If)]
    imported: dict[str, str] = {}
    for node in guarded.body:
        assert isinstance(node, ast.ImportFrom)
        assert node.module is not None
        imported |= {alias.name: node.module for alias in node.names}
    assert sorted(imported) == sorted(set(metaopt_core.__all__) - {"__version__"})
    for name, module in imported.items():
        assert getattr(metaopt_core, name) is getattr(importlib.import_module(module), name)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Lerner'"):
        _ = metaopt_core.Lerner
