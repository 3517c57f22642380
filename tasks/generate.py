"""Stage 1, generate: the task distribution, with its held-out tasks, on disk."""

import json

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from metaopt_core.distributions.contract import load, materialize
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.reporting import figures


@task(name="generate", cache_policy=NO_CACHE)
def generate(execution: Execution, upstream: dict[str, StageOutput]) -> StageOutput:
    """Publish the distribution with the shape of its tasks, a description of its contents, and a figure.

    Not retried: downloads retry by themselves, and nothing else could succeed the second time.
    """
    spec, store, identity = execution.spec, execution.store, execution.identities["generate"]
    with store.publish(identity, upstream) as (folder, extra):
        materialize(spec.generate, spec.data_seed, execution.home.downloads, folder)
        distribution, _ = load(folder, spec.seed)
        extra |= distribution.contents()
        figures.save(distribution.overview(), folder / "tasks.png")
        if extra and FlowRunContext.get():
            get_run_logger().info("%s: %s", spec.generate.distribution, json.dumps(extra))
    return store.made(identity)
