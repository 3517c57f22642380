"""A distribution, a method and a metric of a user's own: from beside the pipelines file, and as new files of the library."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from metaopt_core.distributions.batch import Episode
from metaopt_core.spec.distribution import HeldOut
from tests.flows.conftest import Project, project_in
from tests.toys.planes import LoadedPlanes, Planes

ROOT = Path(__file__).resolve().parents[2]
TOYS = ROOT / "tests" / "toys"

PIPELINE = """
pipelines:
  planes:
    generate: {distribution: "toys.planes:Planes", steepness: 2, held_out: {validation_tasks: 20, test_tasks: 30}}
    train:
      model: {name: mlp, hidden: [8]}
      iterations: 60
      meta_batch_size: 4
      shots: 5
      queries: 5
      baselines: [pretrained, "toys.least_squares:LeastSquares"]
      validation: {every: 20, steps: 2}
    evaluate:
      steps: 3
      metrics: ["toys.largest_error:largest_error"]
      shifted: {steeper: {steepness: 4}, fewer: {shots: 2}}
"""

PREDICT = """
import sys, mlflow
from safetensors.numpy import load_file, save_file
uri, model_uri, inputs, outputs = sys.argv[1:]
mlflow.set_tracking_uri(uri)
save_file({"predictions": mlflow.pyfunc.load_model(model_uri).predict(load_file(inputs), params={"steps": 3})}, outputs)
"""


def _project(folder: Path, api: str | None = None) -> Project:
    shutil.copytree(TOYS, folder / "toys", ignore=shutil.ignore_patterns("__pycache__"))
    return project_in(folder, PIPELINE, api)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, shared_api: str) -> Project:
    """A pipeline of such components, run once. Tests that share it leave it up to date."""
    project = _project(tmp_path_factory.mktemp("own"), shared_api)
    (project.folder / "first.json").write_text(json.dumps(project.json("run", "planes")))
    return project


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same, never run, with a module that can't be imported."""
    project = _project(tmp_path_factory.mktemp("mistakes"))
    (project.folder / "toys" / "broken.py").write_text("1 / 0\n")
    return project


@pytest.fixture
def first(project: Project) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((project.folder / "first.json").read_text())
    return document


def _folder(document: dict[str, Any], stage: str) -> Path:
    return next(Path(one["folder"]) for one in document["stages"] if one["stage"] == stage)


def test_the_method_is_compared_beside_those_that_ship(first: dict[str, Any]) -> None:
    results = first["results"]
    assert list(results["methods"]) == ["maml", "maml_safe", "pretrained", "least_squares", "random", "unadapted"]

    def loss(summary: dict[str, Any], method: str) -> float:
        return float(summary["methods"][method]["steps"][results["horizon"]]["loss"]["mean"])

    assert loss(results, "least_squares") < 1e-6 < 1e-2 < loss(results, "maml")  # 5 examples of 3 numbers are enough, 2 are not
    assert loss(results["shifted"]["fewer"], "least_squares") > 1e-2
    assert loss(results["shifted"]["steeper"], "unadapted") > 2 * loss(results, "unadapted")


def test_the_metric_is_measured_for_every_method_and_reaches_mlflow_and_the_report(first: dict[str, Any]) -> None:
    from mlflow import MlflowClient

    table = pd.read_parquet(_folder(first, "evaluate") / "tasks.parquet")
    assert (table["largest_error_3"] ** 2 >= table["loss_3"] - 1e-6).all()
    assert first["results"]["metrics"]["largest_error"]["title"] == "largest error"
    record = first["mlflow"]
    metrics = MlflowClient(record["tracking_uri"]).get_run(record["run_id"]).data.metrics
    for method in first["results"]["methods"]:
        assert metrics[f"meta_test/largest_error/{method}"] > 0
    page = (_folder(first, "log") / "report.html").read_text()
    assert "least squares" in page
    assert "argest error" in page


def test_the_shape_that_generate_found_is_that_of_the_network(first: dict[str, Any]) -> None:
    assert Planes(distribution="toys.planes:Planes").shape is None
    assert json.loads((_folder(first, "generate") / "shape.json").read_text())["input_shape"] == [3]
    assert load_file(_folder(first, "train") / "parameters.safetensors")["layer0.weight"].shape[-2:] == (3, 8)


def test_the_logged_model_brings_their_source_and_gives_evaluates_numbers(first: dict[str, Any], tmp_path: Path) -> None:
    spec = Planes(distribution="toys.planes:Planes", steepness=2.0, held_out=HeldOut(validation_tasks=20, test_tasks=30))
    tasks = LoadedPlanes(spec, 0, 3).held_out("test", Episode(None, 5, 5), 0, 30)
    given = {name: np.ascontiguousarray(getattr(tasks, name).numpy()) for name in ("support_x", "support_y", "query_x")}
    save_file(given, tmp_path / "inputs.safetensors")
    record = first["mlflow"]
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "METAOPT_MODULES"}}
    subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            PREDICT,
            record["tracking_uri"],
            record["model_uri"],
            "inputs.safetensors",
            "outputs.safetensors",
        ],
        cwd=tmp_path,
        env=environment | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        check=True,
    )
    predictions = load_file(tmp_path / "outputs.safetensors")["predictions"]
    loss = np.square(predictions - tasks.query_y.numpy()).mean((1, 2))
    table = pd.read_parquet(_folder(first, "evaluate") / "tasks.parquet").query("method == 'maml' and variant == 'in-distribution'")
    assert loss == pytest.approx(table["loss_3"].to_numpy(), rel=1e-4)


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("planes.py", ["generate", "train", "evaluate", "log"]),
        ("least_squares.py", ["evaluate", "log"]),
        ("largest_error.py", ["evaluate", "log"]),
    ],
)
def test_what_a_changed_source_concerns_is_planned_again(project: Project, file: str, stages: list[str]) -> None:
    path = project.folder / "toys" / file
    source = path.read_text()
    try:
        path.write_text(f"{source}\nCHANGED = True\n")
        planned = {one["stage"]: one for one in project.json("plan", "planes")["stages"]}
    finally:
        path.write_text(source)
    assert [name for name, one in planned.items() if one["status"] == "would run"] == stages
    assert planned[stages[0]]["reasons"] == [f"changed code toys/{file}"]


def test_planning_imports_neither_torch_nor_what_only_computing_needs(tmp_path: Path) -> None:
    project = _project(tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\nfrom flows import environment\n"
        "from metaopt_core.pipeline.identity import identities\nfrom metaopt_core.spec.loader import load\n"
        "environment.import_from(Path.cwd())\n"
        "identities(load(Path('pipelines.yaml'))['planes'])\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'matplotlib', 'prefect', 'mlflow'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=project.environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "generate.distribution",
            "planes",
            "expected sinusoid, mixture, omniglot, pictures, python or table, or an import path module:Class",
        ),
        ("generate.distribution", "nowhere:Planes", "no module nowhere in "),
        (
            "generate.distribution",
            "toys.planes:Plane",
            "expected a metaopt_core.spec.distribution.DistributionSpec, and toys.planes has no such Plane",
        ),
        ("generate.distribution", "toys.least_squares:LeastSquares", "and toys.least_squares has no such LeastSquares"),
        ("generate.steepness", "steep", "expected a valid number"),
        ("generate.steepnes", "1", "did you mean steepness?"),
        (
            "train.baselines",
            "[toys.planes:Planes]",
            "expected a metaopt_core.spec.method.MethodInfo, and toys.planes has no such Planes",
        ),
        ("train.baselines", "[toys.broken:Method]", "toys.broken can't be imported (ZeroDivisionError: division by zero)"),
        ("evaluate.metrics", "[largest_error]", "or an import path module:Name"),
        ("evaluate.metrics", "[toys.largest_error:nothing]", "and toys.largest_error has no such nothing"),
        ("evaluate.shifted.steeper.steepness", "steep", "expected a valid number"),
        ("evaluate.shifted.steeper.steepnesses", "1", "unknown key, did you mean steepness?"),
    ],
)
def test_a_wrong_name_or_value_is_one_line_with_what_was_expected(own: Project, key: str, value: str, message: str) -> None:
    done = own.metaopt("plan", "planes", "--set", f"{key}={value}")
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_each_as_one_new_file_of_the_library_is_found_by_its_name(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "metaopt_core", tmp_path / "metaopt_core", ignore=shutil.ignore_patterns("__pycache__"))
    planes = (TOYS / "planes.py").read_text().replace("TYPE_CHECKING, Any", "TYPE_CHECKING, Any, Literal", 1)
    for file, folder, text in (
        ("planes.py", "distributions", planes.replace("    noun", '    distribution: Literal["planes"]\n    noun', 1)),
        ("least_squares.py", "methods", (TOYS / "least_squares.py").read_text()),
        ("largest_error.py", "evaluation/metrics", (TOYS / "largest_error.py").read_text()),
    ):
        (tmp_path / "metaopt_core" / folder / file).write_text(text)
    text = PIPELINE.replace("toys.planes:Planes", "planes").replace(', "toys.least_squares:LeastSquares"', ", least_squares")
    (tmp_path / "pipelines.yaml").write_text(text.replace('metrics: ["toys.largest_error:largest_error"]', "metrics: []"))
    code = (
        "import json\nfrom pathlib import Path\nfrom metaopt_core.spec.loader import load\n"
        "from metaopt_core.spec.schema import file_schema\n"
        "spec = load(Path('pipelines.yaml'))['planes']\n"
        "print(type(spec.generate).__module__, *[method.name for method in spec.methods])\n"
        "print(*[metric.name for metric in spec.metrics], 'steepness' in json.dumps(file_schema()))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("METAOPT_")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "metaopt_core.distributions.planes maml safe pretrained least_squares random unadapted",
        "loss r2 rmse mae largest_error True",
    ], done.stderr
