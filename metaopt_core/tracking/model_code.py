"""The code that a logged model includes and the libraries that it requires: what its code imports, and nothing else."""

import importlib.metadata
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from metaopt_core.spec.networks import ModuleSpec
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.user_source import needed

MODEL = Path(__file__).with_name("logged_model.py")

_PACKAGE = "metaopt_core"
_ROOT = Path(__file__).resolve().parents[2]  # the folder that holds the package
_MODULE = f"{_PACKAGE}.{MODEL.parent.name}.{MODEL.stem}"
_DATA = ("*.c",)  # files beside modules that they read

# What the model doesn't need may still be imported from an installed metaopt, in a process that has loaded a model.
_OPEN_PACKAGE = '\n__path__ = __import__("pkgutil").extend_path(__path__, __name__)\n'
# An editable installation has its own finder, which extend_path doesn't ask.
_OPEN_TOP = f"""{_OPEN_PACKAGE}
for _finder in __import__("sys").meta_path:
    _found = getattr(_finder.find_spec(__name__, None), "submodule_search_locations", None) or ()
    __path__ += [_folder for _folder in _found if _folder not in __path__]
"""


@dataclass(frozen=True)
class Code:
    """files: by their paths below the folder from which they are imported. own: the user's. requirements: pinned."""

    files: Mapping[str, Path]
    own: tuple[str, ...]
    requirements: tuple[str, ...]

    def copy(self, folder: Path) -> list[Path]:
        """Copy the files into an empty folder. Returns its top-level entries."""
        for name, file in self.files.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
            if place.name == "__init__.py" and name not in self.own:
                with place.open("a") as copied:
                    copied.write(_OPEN_TOP if name == f"{_PACKAGE}/__init__.py" else _OPEN_PACKAGE)
        return sorted(folder.iterdir())


def of_pipeline(spec: PipelineSpec, method: str = "") -> Code:
    """The code for a pipeline's logged model, which needs the user's own network, but none of their other components.

    method: import path of its method, if that is another than the one that `train` names.
    """
    network = spec.train.model
    return code([*([network.path] if isinstance(network, ModuleSpec) else []), *([method] if method else [])])


def code(import_paths: Iterable[str]) -> Code:
    """What the logged model imports, together with the modules that import paths (`module:Name`) name and their imports.

    Raises UserError for a file that is not Python.
    """
    found = needed([_MODULE, *(path.partition(":")[0] for path in import_paths)], {_PACKAGE: _ROOT})
    files = {name: file for name, file in found.files.items() if file != MODEL.resolve()}
    packages = {file.parent for name, file in files.items() if name.startswith(f"{_PACKAGE}/")}
    for file in (file for package in packages for pattern in _DATA for file in package.glob(pattern)):
        files[file.relative_to(_ROOT).as_posix()] = file
    own = tuple(name for name in files if not name.startswith(f"{_PACKAGE}/"))
    return Code(dict(sorted(files.items())), own, requirements(found.libraries))


def requirements(modules: Iterable[str]) -> tuple[str, ...]:
    """The distributions that provide top-level modules, each with its version; modules that are not installed are optional."""
    distributions = importlib.metadata.packages_distributions()
    names = {name for module in modules for name in _providers(module, distributions.get(module, []))}
    return tuple(sorted(f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in names))


def _providers(module: str, distributions: Iterable[str]) -> set[str]:
    """Among several distributions with files in a top-level module, the one of the same name, if any."""
    same = {name for name in distributions if _normal(name) == _normal(module)}
    return same or set(distributions)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
