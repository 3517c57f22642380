"""Stage 4, log: the pipeline's results in MLflow, and on the page of the Prefect flow run."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from metaopt_core.evaluation.summary import Measure, counted
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.stages import Identity
from metaopt_core.pipeline.store import StageOutput, Store
from metaopt_core.reporting import page as report
from metaopt_core.spec.evaluate import IN_DISTRIBUTION
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking.publishing import publish
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
    """Publish log.json, where in MLflow the results are, and report.html. Retried: a tracking server may be away for a while."""
    store = Store(home)
    with store.publish(identity, upstream) as (folder, extra):
        page = report.render(spec, upstream)
        (folder / "report.html").write_text(page, encoding="utf-8")
        extra |= publish(home, spec, upstream, page)
        (folder / "log.json").write_text(json.dumps(extra, indent=1))
    if FlowRunContext.get():
        summary = json.loads((upstream["evaluate"] / "summary.json").read_text())
        create_table_artifact(table(summary), _key(spec, "results"), description=_caption(spec, summary))
        create_markdown_artifact(_in_short(spec, summary, extra, Store(home).folder(identity)), _key(spec, "report"))
        if summary["shifted"]:
            create_table_artifact(shifted_table(summary), _key(spec, "shifted"), description=_shifted_caption(spec, summary))
        create_link_artifact(extra["url"], extra["run_id"], _key(spec, "mlflow-run"), description=_whereabouts(spec, extra))
    return store.made(identity)


def _in_short(spec: PipelineSpec, summary: Mapping[str, Any], record: Mapping[str, Any], folder: Path) -> str:
    """Where the report is, and its main table."""
    rows = [f"| {' | '.join(row)} |" for row in _compared(summary)]
    served = "" if record["tracking_uri"].startswith("http") else " (`metaopt up` serves it)"
    return "\n".join(
        [
            f"# {spec.name}: [report]({record['report_url']})",
            f"The page is an artifact of the MLflow run{served}, and a file: `{folder / 'report.html'}`.",
            "",
            f"After {summary['horizon']} steps on {summary['tasks']} meta-test tasks:",
            "",
            rows[0],
            "|---|---|---|---|",
            *rows[1:],
        ]
    )


def _compared(summary: Mapping[str, Any]) -> list[list[str]]:
    measure = Measure(summary)
    rows = [["method", measure.name, "10 % worst tasks", "improved"]]
    for method in summary["methods"].values():
        entry = method["steps"][summary["horizon"]]
        improved = f"{entry['improved']:.1%}" if method["takes_steps"] else "–"
        rows.append([method["label"], _cell(entry, measure.key), measure.value(entry[measure.key]["worst"]), improved])
    return rows


def table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a number of adaptation steps, a column a method that takes any: mean ± half of the 95 % interval, diverged tasks."""
    measure = summary["primary"]
    rows: dict[int, dict[str, Any]] = {}
    for results in (method for method in summary["methods"].values() if method["takes_steps"]):
        for entry in results["steps"]:
            rows.setdefault(entry["step"], {"steps": entry["step"]})[results["label"]] = _cell(entry, measure)
    return list(rows.values())


def shifted_table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a variant of the test tasks, a column a method: its cell of `table` at the horizon, and the change against
    in-distribution."""
    measure = summary["primary"]
    rows = []
    for name, variant in {IN_DISTRIBUTION: summary, **summary["shifted"]}.items():
        row = {"test tasks": name}
        for results in variant["methods"].values():
            change = results.get("change", {"mean": None})["mean"]
            row[results["label"]] = _cell(results["steps"][summary["horizon"]], measure) + (
                "" if change is None else f" [{100 * change:+.3g} %]"
            )
        rows.append(row)
    return rows


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
    measure = Measure(summary).name.capitalize()
    ways = f"{summary['ways']} ways, " if summary["ways"] else ""
    normalization = f", {summary['normalization']}" if summary["normalization"] else ""
    return (
        f"**{spec.name}**: {measure} on the queries of {summary['tasks']} meta-test tasks after adaptation, mean ± 95 % interval. "
        f"{ways}{summary['shots']} shots, {summary['queries']} queries, {_step_size(summary)}{normalization}."
    )


def _shifted_caption(spec: PipelineSpec, summary: Mapping[str, Any]) -> str:
    variants = (f"`{name}` {json.dumps(variant['changes'])}" for name, variant in summary["shifted"].items())
    return (
        f"**{spec.name}**: the same after {counted(summary['horizon'], 'step')} on shifted test tasks; in brackets the change "
        f"of the mean against {IN_DISTRIBUTION}. {'; '.join(variants)}."
    )


def _step_size(summary: Mapping[str, Any]) -> str:
    fixed = f"{summary['inner_lr']:g}"
    return f"step sizes learned, {summary['learned_lr']}" if summary["learned_lr"] else f"step size {fixed}"


def _whereabouts(spec: PipelineSpec, record: Mapping[str, Any]) -> str:
    version = f" It is version {record['model_version']} of `{spec.log.register_as}`." if record["model_version"] else ""
    served = "" if record["tracking_uri"].startswith("http") else " `metaopt up` serves this page."
    return f"The MLflow run with the parameters, curves, tables, figures and the model `{record['model_uri']}`.{version}{served}"


def _key(spec: PipelineSpec, suffix: str) -> str:
    """An artifact's key: Prefect allows lower-case letters, digits and dashes."""
    return f"{re.sub(r'[^a-z0-9]+', '-', spec.name).strip('-')}-{suffix}"
