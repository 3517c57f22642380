"""A logged model takes along what its code imports, and requires what that is installed from; nothing else."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from safetensors.torch import save_file

from metaopt_core.errors import UserError
from metaopt_core.meta.learner import Learner
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking.model_code import code, of_pipeline
from metaopt_core.tracking.saving import save
from tests.made_outputs import shape_of, sinusoid_spec

NET = """
from typing import TYPE_CHECKING

import torch
import scipy.fft
from own_package.inner.blocks import width
import apart

if TYPE_CHECKING:
    import own_package.only_typed


class Net(torch.nn.Module):
    def __init__(self, outputs):
        super().__init__()
        import own_package.late
        self.hidden, self.out = torch.nn.Linear(1, width), torch.nn.Linear(width, outputs)

    def forward(self, x):
        return self.out(self.hidden(x).relu())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as that of a pipelines file, with a package of the user's with secrets, and a module elsewhere on Python's path."""
    beside, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    texts = {
        beside / "own_package/__init__.py": "",
        beside / "own_package/nets.py": NET,
        beside / "own_package/inner/__init__.py": "from .. import settings",
        beside / "own_package/inner/blocks.py": "width = 4",
        beside / "own_package/settings.py": "",
        beside / "own_package/late.py": "",
        beside / "own_package/only_typed.py": "",
        beside / "own_package/unused.py": "import pandas",
        beside / "own_package/.env": "PASSWORD=hunter2",
        beside / "own_package/secrets/key.pem": "hunter2",
        beside / "own_package/data.csv": "1,2",
        elsewhere / "apart.py": "",
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(elsewhere))
    monkeypatch.syspath_prepend(str(beside))
    for module in [name for name in sys.modules if name.partition(".")[0] in {"own_package", "apart"}]:
        monkeypatch.delitem(sys.modules, module)  # of another test's folder
    return tmp_path


OWN = [
    "apart.py",
    "own_package/__init__.py",
    "own_package/inner/__init__.py",
    "own_package/inner/blocks.py",
    "own_package/late.py",
    "own_package/nets.py",
    "own_package/settings.py",
]


def _own_spec() -> PipelineSpec:
    model = {"name": "module", "path": "own_package.nets:Net"}
    return sinusoid_spec("own", train={"model": model, "iterations": 1, "shots": 5, "queries": 5})


def _saved(spec: PipelineSpec, folder: Path) -> None:
    save_file(Learner.from_spec(spec, shape_of(spec)).network.init(0), folder / "parameters.safetensors")
    save(spec, shape_of(spec), folder / "parameters.safetensors", folder / "model")


def test_it_takes_the_files_that_the_users_code_imports_and_no_others(folder: Path) -> None:
    assert list(of_pipeline(_own_spec()).own) == OWN
    _saved(_own_spec(), folder)
    taken = {path.relative_to(folder / "model/code").as_posix() for path in (folder / "model/code").rglob("*") if path.is_file()}
    assert {name for name in taken if not name.startswith("metaopt_core/")} == set(OWN)
    everything = b"".join(path.read_bytes() for path in (folder / "model").rglob("*") if path.is_file())
    assert b"hunter2" not in everything


def test_it_takes_of_the_library_what_adapting_needs() -> None:
    files = set(code([]).files)
    assert {"metaopt_core/meta/learner.py", "metaopt_core/kernels/kernels.c", "metaopt_core/spec/train.py"} <= files
    parts = {name.split("/")[1] for name in files if name.count("/") > 1}
    assert parts.isdisjoint({"evaluation", "methods", "pipeline", "reporting", "training"})
    assert not {"metaopt_core/tracking/runs.py", "metaopt_core/spec/loader.py", "metaopt_core/spec/pipeline.py"} & files


def test_what_is_imported_of_libraries_is_required(folder: Path) -> None:
    names = {requirement.partition("==")[0] for requirement in code(["own_package.nets:Net"]).requirements}
    assert {"torch", "numpy", "mlflow", "scipy", "safetensors", "pydantic"} <= names
    assert names.isdisjoint({"pandas", "prefect", "optuna", "matplotlib", "jinja2", "metaopt"})
    _saved(_own_spec(), folder)
    written = (folder / "model/requirements.txt").read_text().split()
    assert written == list(code(["own_package.nets:Net"]).requirements)
    assert f"torch=={importlib.metadata.version('torch').partition('+')[0]}" in written


_BLOCKED = """
import importlib.metadata, json, sys
blocked = set(json.loads(sys.argv[2]))

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
import mlflow, numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
ones = np.ones((3, 1))
assert model.predict({"support_x": ones, "support_y": ones, "query_x": ones}, params={"steps": 2}).shape == (3, 1)
import metaopt_core.meta.learner
print(metaopt_core.meta.learner.__file__)
"""


def _required(names: list[str]) -> set[str]:
    """The distributions that requirements install, and those that these require, and so on."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop().lower().replace("_", "-").replace(".", "-")
        if name in found:
            continue
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # of another platform
            continue
        found.add(name)
        requirements = [Requirement(text) for text in required]
        pending += [one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def _elsewhere(script: str, folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "METAOPT_MODULES")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(folder / "model"), *arguments],
        cwd=folder / "model",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("own", [False, True])
def test_it_loads_where_its_requirements_are_installed_and_nothing_else(own: bool, folder: Path) -> None:
    _saved(_own_spec() if own else sinusoid_spec("mlp"), folder)
    written = (folder / "model/requirements.txt").read_text().split()
    distributions = _required([requirement.partition("==")[0] for requirement in written])
    providers = importlib.metadata.packages_distributions()
    normal = {module: {name.lower().replace("_", "-") for name in names} for module, names in providers.items()}
    blocked = {module for module, names in normal.items() if not names & distributions} - {"metaopt_core"}
    assert {"pooch", "prefect", "optuna"} <= blocked
    learner = _elsewhere(_BLOCKED, folder, json.dumps(sorted(blocked)))
    assert Path(learner).is_relative_to(folder / "model")


_AND_THE_LIBRARY = """
import sys
import mlflow
mlflow.pyfunc.load_model(sys.argv[1])
import metaopt_core.spec.loader, metaopt_core.evaluation.statistics, metaopt_core.meta.learner
print(metaopt_core.meta.learner.__file__)
"""


def test_a_process_that_has_loaded_a_model_can_still_use_an_installed_metaopt(folder: Path) -> None:
    _saved(sinusoid_spec("mlp"), folder)
    assert Path(_elsewhere(_AND_THE_LIBRARY, folder)).is_relative_to(folder / "model")


def test_code_that_is_no_python_is_named(folder: Path) -> None:
    (folder / "project/own_package/settings.py").write_text("a = = 1\n")
    with pytest.raises(UserError, match=r"settings.py:1: not valid Python"):
        code(["own_package.nets:Net"])
