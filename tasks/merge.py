"""After the last repetition of a pipeline: their results as one, here and in an MLflow run that theirs are nested below."""

import json
from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE

from metaopt_core.evaluation import over_seeds
from metaopt_core.pipeline import repetitions
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.store import StageOutput, write_atomically
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking.publishing import publish_seeds
from tasks.retrying import DELAYS, mlflow_was_away


@task(
    name="merge",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(DELAYS),
    retry_delay_seconds=DELAYS,
    retry_condition_fn=mlflow_was_away,
)
def summarize(spec: PipelineSpec, home: Home, evaluated: Sequence[StageOutput], logged: Sequence[StageOutput]) -> None:
    """Write the statistics over repetitions, in MLflow and in the home. Retried, for a tracking server may be away for a while."""
    summary = over_seeds.summarize([json.loads((output / "summary.json").read_text()) for output in evaluated])
    finished = max(output.finished for output in evaluated)
    publish_seeds(home, spec, repetitions.group(spec), summary, [output.extra["run_id"] for output in logged], finished)
    file = repetitions.record(home, spec)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(summary, indent=1))
