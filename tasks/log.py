"""Stage 4, log: the pipeline's results in MLflow, and on the page of the Prefect flow run."""

import json
import re
from collections.abc import Mapping
from typing import Any

from prefect import task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from metaopt_core import tracking
from metaopt_core.home import Home
from metaopt_core.spec.models import PipelineSpec
from metaopt_core.stages import Identity
from metaopt_core.store import StageOutput, Store
from tasks.retrying import DELAYS, mlflow_was_away


@task(
    name="log",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(DELAYS),
    retry_delay_seconds=DELAYS,
    retry_condition_fn=mlflow_was_away,
)
def log(spec: PipelineSpec, home: Home, identity: Identity, upstream: dict[str, StageOutput]) -> StageOutput:
    """Publish log.json: where in MLflow the results are. Retried, for a tracking server may be away for a while."""
    store = Store(home)
    with store.publish(identity, upstream) as (folder, extra):
        extra |= tracking.publish(home, spec, upstream)
        (folder / "log.json").write_text(json.dumps(extra, indent=1))
    if FlowRunContext.get():
        summary = json.loads((upstream["evaluate"] / "summary.json").read_text())
        create_table_artifact(table(summary), _key(spec, "results"), description=_caption(spec, summary))
        create_link_artifact(extra["url"], extra["run_id"], _key(spec, "mlflow-run"), description=_whereabouts(spec, extra))
    return store.made(identity)


def table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a number of adaptation steps, a column a method: mean ± half of the 95 % interval, and diverged tasks if any."""
    measure = "accuracy" if summary["metric"] == "cross_entropy" else "loss"
    rows: dict[int, dict[str, Any]] = {}
    for results in summary["methods"].values():
        for entry in results["steps"]:
            rows.setdefault(entry["step"], {"steps": entry["step"]})[results["label"]] = _cell(entry, measure)
    return list(rows.values())


def _cell(entry: Mapping[str, Any], measure: str) -> str:
    mean, interval = entry[measure]["mean"], entry[measure]["ci95"]
    if mean is None or interval is None:
        text = "–"
    elif measure == "accuracy":
        text = f"{mean:.1%} ± {interval:.1%}"
    else:
        text = f"{mean:.3f} ± {interval:.3f}"
    return f"{text} ({entry['diverged']} diverged)" if entry["diverged"] else text


def _caption(spec: PipelineSpec, summary: Mapping[str, Any]) -> str:
    measure = "Accuracy" if summary["metric"] == "cross_entropy" else "Mean squared error"
    ways = f"{summary['ways']} ways, " if summary["ways"] else ""
    normalization = f", {summary['normalization']}" if summary["normalization"] else ""
    return (
        f"**{spec.name}**: {measure} on the queries of {summary['tasks']} meta-test tasks after adaptation, mean ± 95 % interval. "
        f"{ways}{summary['shots']} shots, {summary['queries']} queries, {_step_size(summary)}{normalization}."
    )


def _step_size(summary: Mapping[str, Any]) -> str:
    fixed = f"{summary['inner_lr']:g}"
    return f"step sizes learned, {summary['learned_lr']} (baselines {fixed})" if summary["learned_lr"] else f"step size {fixed}"


def _whereabouts(spec: PipelineSpec, record: Mapping[str, Any]) -> str:
    version = f" It is version {record['model_version']} of `{spec.log.register_as}`." if record["model_version"] else ""
    served = "" if record["tracking_uri"].startswith("http") else " `metaopt up` serves this page."
    return f"The MLflow run with the parameters, curves, tables, figures and the model `{record['model_uri']}`.{version}{served}"


def _key(spec: PipelineSpec, suffix: str) -> str:
    """An artifact's key: Prefect allows lower-case letters, digits and dashes."""
    return f"{re.sub(r'[^a-z0-9]+', '-', spec.name).strip('-')}-{suffix}"
