"""The pipeline's flow: the stages' flows, one after the other."""

import importlib
from collections.abc import Sequence

from prefect import Flow, flow, get_run_logger

from flows import environment
from flows.planning import plan, select
from flows.stage_flows import StageName, ask_again, flow_of
from flows.versions import as_served
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.repetitions import named, repeats
from metaopt_core.pipeline.stages import PUBLISHING
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.spec.pipeline import PipelineSpec


@flow(flow_run_name="{spec.name}", persist_result=False, validate_parameters=True)
def pipeline(
    spec: PipelineSpec,
    only: StageName | None = None,
    first: StageName | None = None,
    last: StageName | None = None,
    force: bool = False,
) -> dict[str, StageOutput]:
    """Run a pipeline: one stage after the other. A stage with a valid output is not run again.

    only, or first and last: which stages; none means all.
    force: run the selected stages although their outputs are valid.
    With several seeds or splits it runs once for each, and an output is named by its stage and repetition.
    """
    selected, spec = select(only, first, last), as_served(spec)
    if spec.repetitions == 1:
        return run(environment.execution(spec), selected, force)
    executions = {named(spec, one): environment.execution(one) for one in repeats(spec)}
    runs = {}
    for which, execution in executions.items():
        get_run_logger().info("%s of %s:", which, spec.name)
        runs[which] = _repetition(execution, selected, force, f"{spec.name}, {which}")(execution.spec)
    if PUBLISHING in selected:
        made = [{entry.stage: entry.output for entry in plan(execution)} for execution in executions.values()]
        importlib.import_module("tasks.merge").summarize(environment.execution(spec), made)
    return {f"{stage}, {which}": output for which, outputs in runs.items() for stage, output in outputs.items()}


def run(execution: Execution, selected: Sequence[str], force: bool = False) -> dict[str, StageOutput]:
    """Run stages. Call it from within a flow."""
    plans = plan(execution, selected, force)  # a missing upstream output is an error before anything runs
    if any(one.runs for one in plans):
        from metaopt_core.training.preflight import check

        check(execution.spec)
    if force:
        ask_again(execution, selected)
    return {stage: flow_of(stage, execution, asked_again=force)(execution.spec) for stage in selected}


def _repetition(execution: Execution, selected: Sequence[str], force: bool, name: str) -> Flow[..., dict[str, StageOutput]]:
    def repetition(spec: PipelineSpec) -> dict[str, StageOutput]:  # noqa: ARG001 - Prefect shows it
        return run(execution, selected, force)

    return flow(name="pipeline", flow_run_name=name, persist_result=False, validate_parameters=False)(repetition)
