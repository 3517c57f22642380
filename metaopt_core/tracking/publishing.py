"""The results of a pipeline in the run of its execution: metrics, tables, figures, the data, the model and its version.

Publishing again changes nothing: points and models are looked up first, and files replace themselves.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.store import TIMES, StageOutput
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking import results
from metaopt_core.tracking.connection import answering
from metaopt_core.tracking.model_code import of_pipeline
from metaopt_core.tracking.registry import log_model, register
from metaopt_core.tracking.runs import PARENT, Run, curve_name, running

if TYPE_CHECKING:
    from mlflow.entities import Metric

_TRAINED_IN = "metaopt.trained_in"
_REGISTERED = "metaopt.registered"


def publish(execution: Execution, upstream: Mapping[str, StageOutput], report: str = "") -> dict[str, Any]:
    """Record a pipeline's results in the run of its execution: metrics, tables, figures, the data, the model and its version.

    upstream: the outputs of generate, train and evaluate; report: the HTML page. Returns where everything is:
    tracking_uri, experiment_id, run_id, model_uri, model_version and registered_as (none unless the spec registers the model), and
    own_code, the user's files that the model includes. `links` turns it into addresses. Doing it again changes nothing.
    """
    spec = execution.spec
    with running(execution) as run, answering(run.client.tracking_uri):
        summary = json.loads((upstream["evaluate"] / "summary.json").read_text())
        model_id = log_model(run, spec, upstream["generate"], upstream["train"], summary)
        run.log_points(_result_points(run, summary, upstream["evaluate"].finished, model_id))
        _log_times(run, upstream)
        _log_files(run, upstream, summary, report)
        _log_data(run, spec, upstream["generate"])
        _complete_curves(run, spec, upstream["train"])
        _log_over_training(run, upstream["evaluate"])
        version = register(run, spec, model_id) if spec.log.register_as else None
        if version is not None:
            run.client.set_tag(run.id, _REGISTERED, f"{spec.log.register_as}, version {version}")
        return {
            "tracking_uri": run.client.tracking_uri,
            "experiment_id": run.experiment_id,
            "run_id": run.id,
            "model_uri": f"models:/{model_id}",
            "model_version": version,
            "registered_as": spec.log.register_as,
            "own_code": list(of_pipeline(spec).own),
        }


def publish_repetitions(
    execution: Execution, group: str, summary: Mapping[str, Any], report: str, runs: Sequence[str], finished: float
) -> dict[str, Any]:
    """Record results over repetitions in a run above the repetitions' own. Doing it again changes nothing.

    report: the HTML page; finished: when the last repetition finished, in seconds since 1970. Returns where it is: tracking_uri,
    experiment_id, run_id.
    """
    with running(execution, group) as parent, answering(parent.client.tracking_uri):
        parent.log_points(_result_points(parent, summary, finished))
        parent.client.log_text(parent.id, json.dumps(summary, indent=1), "summary.json")
        parent.client.log_text(parent.id, report, "report.html")
        for run in runs:
            parent.client.set_tag(run, PARENT, parent.id)
        return {"tracking_uri": parent.client.tracking_uri, "experiment_id": parent.experiment_id, "run_id": parent.id}


def _result_points(run: Run, summary: Mapping[str, Any], time: float, model_id: str | None = None) -> "list[Metric]":
    """All numbers of a summary; the learned method's at the horizon are also recorded for the logged model."""
    points = [
        run.point(*number, time) for number in (*results.curves(summary), *results.by_shots(summary), *results.differences(summary))
    ]
    return points + [run.point(*number, time, model_id) for number in results.at_horizon(summary)]


def _log_times(run: Run, upstream: Mapping[str, StageOutput]) -> None:
    """Log durations in seconds. Unlike results they differ when an output is made again, so existing ones stay."""
    points = [run.point(f"wall_time/seconds/{stage}", 0, output.seconds, output.finished) for stage, output in upstream.items()]
    trained = upstream["train"]
    iterations, shares = trained.extra.get("iterations_by_phase", {}), trained.extra.get("time_shares", {})
    times: dict[str, float] = {}
    for phase, seconds in trained.extra.get("seconds_by_phase", {}).items():
        times[f"wall_time/seconds_of_training/{phase}"] = seconds
        if seconds > 0 and iterations.get(phase):
            times[f"wall_time/iterations_per_second/{phase}"] = iterations[phase] / seconds
        times |= {f"wall_time/share_of_training/{phase}/{part}": share for part, share in shares.get(phase, {}).items()}
    run.log_points(points + [run.point(name, 0, value, trained.finished) for name, value in times.items()])


def _log_files(run: Run, upstream: Mapping[str, StageOutput], summary: Mapping[str, Any], report: str) -> None:
    """Log the report and figures as they are; tables as Parquet and as MLflow's pages show them. `log_table` would append."""
    import pandas as pd

    tasks = pd.read_parquet(upstream["evaluate"] / "tasks.parquet").drop(
        columns=["confidence", "correct", "groups"], errors="ignore"
    )
    tables = {
        "summary": pd.DataFrame(results.rows(summary)),
        "differences": pd.json_normalize(summary["differences"], sep="_").dropna(axis=1, how="all"),
        "tasks": tasks,
    } | ({"by_shots": pd.DataFrame(rows)} if (rows := results.rows_by_shots(summary)) else {})
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


def _log_data(run: Run, spec: PipelineSpec, generated: StageOutput) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": Path(generated.folder).as_uri()})
    dataset = Dataset(spec.generate.distribution, generated.content, "local", source)
    run.client.log_inputs(run.id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "meta-learning")])])


def _complete_curves(run: Run, spec: PipelineSpec, trained: StageOutput) -> None:
    """Log the points of the training curves that were lost to a killed process or an outage.

    If another run did the training, that run has the curves: say which one.
    """
    elsewhere = trained.extra.get("mlflow_run")
    if elsewhere == run.id:
        _log_history(run, trained)
    elif elsewhere:
        note = f"{spec.description}\n\nThe learned parameters were reused from run `{elsewhere}`, which has their curves."
        run.client.set_tag(run.id, _TRAINED_IN, elsewhere)
        run.client.set_tag(run.id, "mlflow.note.content", note.strip())


def _log_history(run: Run, trained: StageOutput) -> None:
    import pandas as pd

    history = pd.read_parquet(trained / "history.parquet").assign(time=pd.read_parquet(trained / TIMES)["time"])
    columns = (history[name].tolist() for name in ("phase", "iteration", "name", "value", "time"))
    run.log_points(
        [run.point(curve_name(phase, name), step, value, time) for phase, step, name, value, time in zip(*columns, strict=True)]
    )


def _log_over_training(run: Run, evaluated: StageOutput) -> None:
    """Results on meta-test tasks over training, if they were asked for."""
    import pandas as pd

    path = evaluated / "over_training.parquet"
    if path.exists():
        found = pd.read_parquet(path)
        columns = (found[name].tolist() for name in ("phase", "iteration", "name", "value"))
        points = zip(*columns, strict=True)
        run.log_points([run.point(curve_name(phase, name), step, value, evaluated.finished) for phase, step, name, value in points])
