"""The results of a pipeline in the run of its execution: metrics, tables, figures, the data, the model and its version.

Publishing again changes nothing: points and models are looked up first, and files replace themselves.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaopt_core.evaluation.verdict import difference
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.stages import without_password
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.spec.evaluate import IN_DISTRIBUTION
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking.connection import answering
from metaopt_core.tracking.registry import log_model, register
from metaopt_core.tracking.runs import PARENT, Run, running

if TYPE_CHECKING:
    from mlflow.entities import Metric

_TRAINED_IN = "metaopt.trained_in"


def publish(home: Home, spec: PipelineSpec, upstream: Mapping[str, StageOutput], report: str = "") -> dict[str, Any]:
    """Record a pipeline's results in the run of its execution: metrics, tables, figures, the data, the model and its version.

    upstream: the outputs of generate, train and evaluate; report: the HTML page that tells of them. Returns where it all is:
    tracking_uri, experiment_id, run_id, model_uri, model_version (none unless the spec registers the model), url, report_url. Doing
    it again changes nothing.
    """
    with running(home, spec) as run, answering(run.client.tracking_uri):
        summary = json.loads((upstream["evaluate"] / "summary.json").read_text())
        model_id = log_model(run, spec, upstream["generate"], upstream["train"])
        run.log_points(_result_points(run, summary, model_id))
        _log_times(run, upstream)
        _log_files(run, upstream, summary, report)
        _log_data(run, spec, upstream["generate"])
        _complete_curves(run, spec, upstream["train"])
        _log_history(run, upstream["evaluate"] / "over_training.parquet")
        version = register(run, spec, model_id) if spec.log.register_as else None
        return {
            "tracking_uri": without_password(run.client.tracking_uri),
            "experiment_id": run.experiment_id,
            "run_id": run.id,
            "model_uri": f"models:/{model_id}",
            "model_version": version,
            "url": run.url,
            "report_url": f"{run.url}/artifacts/report.html",
        }


def publish_seeds(home: Home, spec: PipelineSpec, group: str, summary: Mapping[str, Any], runs: Sequence[str]) -> None:
    """Record results over seeds in a run that the runs of the seeds are nested below. Doing it again changes nothing."""
    with running(home, spec, group) as parent, answering(parent.client.tracking_uri):
        parent.log_points(_result_points(parent, summary))
        parent.client.log_text(parent.id, json.dumps(summary, indent=1), "summary.json")
        for run in runs:
            parent.client.set_tag(run, PARENT, parent.id)


def _result_points(run: Run, summary: Mapping[str, Any], model_id: str | None = None) -> "list[Metric]":
    """Curves over adaptation steps (`test/maml/loss`), and numbers at the horizon: the model's as `test_loss`, its paired
    differences from the other methods (`test_difference/random/loss`), and what is known there alone
    (`test/maml/inductive_accuracy`). For a shifted variant, `shifted/louder/maml/loss` and `shifted_louder_loss`.
    """
    points, model = [], summary["model"]
    shifted = {f"shifted/{name}": variant for name, variant in summary["shifted"].items()}
    for prefix, variant in {"test": summary, **shifted}.items():
        for method, results in variant["methods"].items():
            for entry in _entries(results):
                values = _result_values(entry)
                points += [run.point(f"{prefix}/{method}/{name}", entry["step"], value) for name, value in values.items()]
            points += [run.point(f"{prefix}/{method}/{name}", 0, value) for name, value in _once(results).items()]
        of_model = variant["methods"][model]
        compared = _result_values(of_model["steps"][summary["horizon"]]) | _once(of_model)
        points += [run.point(f"{prefix.replace('/', '_')}_{name}", 0, value, model_id) for name, value in compared.items()]
    for other in summary["methods"].keys() - {model}:
        for name in (name for name, read in summary["metrics"].items() if not read["pooled"]):
            if paired := difference(summary, model, other, name):
                values = _numbers({name: paired["mean"], f"{name}_ci95": paired["ci95"]})
                points += [run.point(f"test_difference/{other}/{key}", 0, value) for key, value in values.items()]
    return points


def _entries(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One method after each number of steps, or after none where it takes none."""
    entries: list[dict[str, Any]] = results["steps"]
    return entries if results["takes_steps"] else entries[:1]


def _result_values(entry: Mapping[str, Any]) -> dict[str, float]:
    """One method after one number of steps."""
    values: dict[str, float | None] = {"diverged": entry["diverged"], "improved": entry["improved"]}
    for name, statistics in entry.items():
        if isinstance(statistics, Mapping):
            values |= {name: statistics["mean"], f"{name}_ci95": statistics["ci95"]}
            values |= {f"{name}_median": statistics["median"], f"{name}_worst": statistics["worst"]}
    return _numbers(values)


def _once(results: Mapping[str, Any]) -> dict[str, float]:
    """What one method has a single number of: the step size, pooled metrics, the means of queries normalized otherwise."""
    values = {"inner_lr": results["inner_lr"], **results["pooled"]}
    for kind in ("inductive", "collected"):
        for name, statistics in (results[kind] or {}).items():
            values |= {f"{kind}_{name}": (statistics or {}).get("mean"), f"{kind}_{name}_ci95": (statistics or {}).get("ci95")}
    return _numbers(values)


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    """The finite ones: for others MLflow would show a number in their place."""
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def _log_times(run: Run, upstream: Mapping[str, StageOutput]) -> None:
    """Wall times, in seconds. Unlike results they differ when an output is made again, so those that are there stay."""
    times = {f"seconds/{stage}": output.seconds for stage, output in upstream.items()}
    iterations = upstream["train"].extra.get("iterations_by_phase", {})
    for phase, seconds in upstream["train"].extra.get("seconds_by_phase", {}).items():
        times[f"seconds/train_{phase}"] = seconds
        if seconds > 0 and iterations.get(phase):
            times[f"iterations_per_second/{phase}"] = iterations[phase] / seconds
    for phase, shares in upstream["train"].extra.get("time_shares", {}).items():
        times |= {f"time_share/{phase}/{part}": share for part, share in shares.items()}
    run.log_points([run.point(name, 0, value) for name, value in times.items()])


def _log_files(run: Run, upstream: Mapping[str, StageOutput], summary: Mapping[str, Any], report: str) -> None:
    """The report and figures as they are; tables as Parquet and as MLflow's pages show them. `log_table` would append to them."""
    import pandas as pd

    tasks = pd.read_parquet(upstream["evaluate"] / "tasks.parquet").drop(columns=["confidence", "correct"], errors="ignore")
    tables = {
        "summary": pd.DataFrame(summary_rows(summary)),
        "differences": pd.json_normalize(summary["differences"], sep="_").dropna(axis=1, how="all"),
        "tasks": tasks,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tables").mkdir()
        for table, frame in tables.items():
            frame.to_json(folder / f"tables/{table}.json", orient="split", index=False, double_precision=6)
        shutil.copy(upstream["evaluate"] / "tasks.parquet", folder / "tables/tasks.parquet")
        shutil.copy(upstream["evaluate"] / "summary.json", folder / "summary.json")
        if report:
            (folder / "report.html").write_text(report, encoding="utf-8")
        for stage, output in upstream.items():
            for figure in sorted(Path(output.folder).glob("*.png")):
                (folder / "figures" / stage).mkdir(parents=True, exist_ok=True)
                shutil.copy(figure, folder / "figures" / stage)
        run.client.log_artifacts(run.id, str(folder))
    shown = [{"path": f"tables/{table}.json", "type": "table"} for table in tables]
    run.client.set_tag(run.id, "mlflow.loggedArtifacts", json.dumps(shown))


def summary_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """summary.json as flat rows, one a variant, method and number of steps."""
    rows = []
    for variant, tested in {IN_DISTRIBUTION: summary, **summary["shifted"]}.items():
        for results in tested["methods"].values():
            for entry in _entries(results):
                row = {"variant": variant, "method": results["label"], "steps": entry["step"]}
                row |= {key: entry[key] for key in ("diverged", "improved")}
                for name, statistics in entry.items():
                    if isinstance(statistics, Mapping):
                        row |= {f"{name}_{key}": value for key, value in statistics.items()}
                rows.append(row)
    return rows


def _log_data(run: Run, spec: PipelineSpec, generated: StageOutput) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": Path(generated.folder).as_uri()})
    dataset = Dataset(spec.generate.distribution, generated.content, "local", source)
    run.client.log_inputs(run.id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "meta-learning")])])


def _complete_curves(run: Run, spec: PipelineSpec, trained: StageOutput) -> None:
    """Log those points of the training curves that a killed process or an outage has cost.

    Where training was done by another run, that one holds its curves: say which.
    """
    elsewhere = trained.extra.get("mlflow_run")
    if elsewhere == run.id:
        _log_history(run, trained / "history.parquet")
    elif elsewhere:
        note = f"{spec.description}\n\nThe learned parameters were reused from run `{elsewhere}`, which holds their curves."
        run.client.set_tag(run.id, _TRAINED_IN, elsewhere)
        run.client.set_tag(run.id, "mlflow.note.content", note.strip())


def _log_history(run: Run, path: Path) -> None:
    """Log the points of a table of curves over iterations."""
    import pandas as pd

    history = pd.read_parquet(path)
    columns = (history[name].tolist() for name in ("phase", "iteration", "name", "value"))
    run.log_points([run.point(f"{phase}/{name}", step, value) for phase, step, name, value in zip(*columns, strict=True)])
