"""After the last repetition of a pipeline: the results over all, in the home and in an MLflow run above theirs."""

import json
from collections.abc import Mapping, Sequence

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from metaopt_core.evaluation import over_repetitions
from metaopt_core.pipeline import repetitions
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.store import StageOutput, write_atomically
from metaopt_core.reporting.repetitions_page import render
from metaopt_core.tracking.publishing import publish_repetitions
from tasks import artifacts
from tasks.retrying import DELAYS, mlflow_was_away


@task(
    name="merge",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(DELAYS),
    retry_delay_seconds=DELAYS,
    retry_condition_fn=mlflow_was_away,
)
def summarize(execution: Execution, outputs: Sequence[Mapping[str, StageOutput]]) -> None:
    """Write the statistics over repetitions and a page about them, in MLflow and in the home, and show them on Prefect's page.

    execution: of the pipeline that is repeated. outputs: of each repetition, by stage. Retried, because a tracking server may be
    away for a while.
    """
    spec, evaluated, logged = execution.spec, [made["evaluate"] for made in outputs], [made["log"] for made in outputs]
    names = [repetitions.named(spec, one) for one in repetitions.repeats(spec)]
    each = {which: json.loads((output / "summary.json").read_text()) for which, output in zip(names, evaluated, strict=True)}
    reports = {which: output / "report.html" for which, output in zip(names, logged, strict=True)}
    summary = over_repetitions.summarize(list(each.values()), "split" if spec.splits > 1 else "seed")
    page = render(spec, summary, each, reports)
    finished = max(output.finished for output in evaluated)
    group, runs = repetitions.group(spec), [output.extra["run_id"] for output in logged]
    made = publish_repetitions(execution, group, summary, page, runs, finished)
    file = repetitions.record(execution.home, spec)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file.with_suffix(".html"), page)
    write_atomically(file, json.dumps(summary | {"mlflow": made}, indent=1))
    if FlowRunContext.get():
        page_there = f"The report over all repetitions: `{file.with_suffix('.html')}`."
        create_markdown_artifact(artifacts.results(spec, summary, whereabouts=page_there), artifacts.key(spec, "results"))
