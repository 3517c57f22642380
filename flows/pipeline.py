"""The pipeline's flow: the stages' flows, one after the other."""

from prefect import flow

from flows.planning import plan, select
from flows.stages import FLOWS, StageName, start_afresh
from metaopt_core.home import Home
from metaopt_core.spec.models import PipelineSpec
from metaopt_core.store import StageOutput, Store


@flow(flow_run_name="{spec.name}", persist_result=False, validate_parameters=True)
def pipeline(
    spec: PipelineSpec,
    only: StageName | None = None,
    first: StageName | None = None,
    last: StageName | None = None,
    force: bool = False,
) -> dict[str, StageOutput]:
    """Run a pipeline: generate → train → evaluate → log. A stage with a valid output is not run again.

    only, or first and last: which stages; none means all.
    force: run the selected stages although their outputs are valid.
    """
    selected = select(only, first, last)
    home = Home.current()
    plan(spec, Store(home), selected, force)  # a missing upstream output is an error before anything runs
    if force:
        start_afresh(home, spec, selected)
    return {stage: FLOWS[stage](spec) for stage in selected}
