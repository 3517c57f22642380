"""Components of a pipeline that anyone can add: distributions, methods and metrics, found by name or by import path.

The ones that ship are the modules and folders of a package, which is scanned: there is no list to extend. A user's component is
named by an import path, as in `mypackage.tasks:Waves`, and is beside the pipelines file or on Python's path. Planning imports
components, so their modules import torch only inside the functions that compute.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic_core import PydanticCustomError

from metaopt_core.errors import UserError
from metaopt_core.spec import user_source
from metaopt_core.spec.base import is_import_path

DISTRIBUTIONS = "metaopt_core.distributions"
METHODS = "metaopt_core.methods"
METRICS = "metaopt_core.evaluation.metrics"


@cache
def known(package: str, kind: type) -> Mapping[str, Any]:
    """The components of a package by name: subclasses or instances of a kind that its modules define.

    A package lists its modules without components in SUPPORT.
    """
    root = importlib.import_module(package)
    found: dict[str, Any] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(root.__path__) if module.name not in root.SUPPORT):
        module = importlib.import_module(f"{package}.{name}")
        found |= {one.component_name(): one for one in vars(module).values() if _is_component(one, kind, module.__name__)}
    return found


def _is_component(value: Any, kind: type, module: str) -> bool:
    if isinstance(value, kind):
        return True
    return isinstance(value, type) and issubclass(value, kind) and value.__module__ == module and bool(value.component_name())  # type: ignore[attr-defined]


def find(package: str, kind: type, name: str) -> Any:
    """The component with a name or import path. Raises PydanticCustomError, which says what was expected."""
    components = known(package, kind)
    if name in components:
        return components[name]
    if not is_import_path(name):
        expected = {"expected": _either(components)}
        raise PydanticCustomError("component", "expected {expected}, or an import path module:Name", expected)
    return imported(name, kind)


def imported(path: str, kind: type) -> Any:
    """The component that an import path names. Raises PydanticCustomError if it can't be imported or is of another kind."""
    module, _, name = path.partition(":")
    try:
        user_source.sources(path)  # whose error says which folders were searched
        found = getattr(importlib.import_module(module), name, None)
    except UserError as error:
        raise PydanticCustomError("component", "{why}", {"why": str(error).partition(": ")[2]}) from None
    except Exception as error:  # the user's module may raise anything
        why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise PydanticCustomError("component", "{module} can't be imported ({why})", {"module": module, "why": why}) from None
    fits = isinstance(found, kind) or (isinstance(found, type) and issubclass(found, kind))
    if not fits:
        what = {"module": module, "name": name, "kind": f"{kind.__module__}.{kind.__qualname__}"}
        raise PydanticCustomError("component", "expected a {kind}, and {module} has no such {name}", what)
    return found


def _either(names: Mapping[str, Any]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
