"""Stage 4, log: the pipeline's results in MLflow, and on the page of the Prefect flow run."""

import json
from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.reporting import page as report
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking.links import links
from metaopt_core.tracking.publishing import publish
from tasks import artifacts
from tasks.retrying import DELAYS, mlflow_was_away


@task(
    name="log",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(DELAYS),
    retry_delay_seconds=DELAYS,
    retry_condition_fn=mlflow_was_away,
)
def log(execution: Execution, upstream: dict[str, StageOutput]) -> StageOutput:
    """Publish log.json (where the results are in MLflow) and report.html. Retried: a tracking server may be away for a while."""
    spec, store, identity = execution.spec, execution.store, execution.identities["log"]
    with store.publish(identity, upstream) as (folder, extra):
        page = report.render(spec, upstream)
        (folder / "report.html").write_text(page, encoding="utf-8")
        extra |= publish(execution, upstream, page)
        (folder / "log.json").write_text(json.dumps(extra, indent=1))
    if FlowRunContext.get():
        if extra["own_code"]:
            get_run_logger().info("the logged model includes %s", ", ".join(extra["own_code"]))
        summary = json.loads((upstream["evaluate"] / "summary.json").read_text())
        record = extra | links(execution.home, extra)
        whereabouts = f"The report is an artifact of the MLflow run, and a file: `{store.folder(identity) / 'report.html'}`."
        text = artifacts.results(spec, summary, record["report_url"] or "", whereabouts)
        create_markdown_artifact(text, artifacts.key(spec, "results"))
        if record["url"]:
            create_link_artifact(
                record["url"], record["run_id"], artifacts.key(spec, "mlflow-run"), description=_whereabouts(spec, record)
            )
    return store.made(identity)


def _whereabouts(spec: PipelineSpec, record: Mapping[str, Any]) -> str:
    version = f" It is version {record['model_version']} of `{spec.log.register_as}`." if record["model_version"] else ""
    return f"The MLflow run with the parameters, curves, tables, figures and the model `{record['model_uri']}`.{version}"
