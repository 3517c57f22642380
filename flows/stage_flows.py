"""Each stage as its own Prefect flow: reuse its output if there is a valid one, else run its task under the output's lock.

The flows are made from the table of stages. A flow that is part of a pipeline is given its execution; one that was started by
itself (from Prefect's page) makes its own from the environment. Stages are imported when they run, so that serving starts quickly.
"""

import pkgutil
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from prefect import Flow, flow, get_run_logger
from pydantic import AfterValidator, Field

from flows import environment
from flows.console import without_lost_connections, without_tracebacks_for_users
from flows.planning import FORCED, assess, in_brief, require, stage_named
from flows.versions import as_served
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.stages import STAGES
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.spec.pipeline import PipelineSpec

StageName = Annotated[str, AfterValidator(stage_named), Field(json_schema_extra={"enum": list(STAGES)})]

environment.begin()
without_tracebacks_for_users()
without_lost_connections()


def flow_of(stage: str, execution: Execution | None = None, asked_again: bool = False) -> Flow[..., StageOutput]:
    """The flow of a stage, by itself or in an execution. asked_again: `--force` has just asked for its output again."""

    def run(spec: PipelineSpec, force: bool = False) -> StageOutput:
        where = execution or environment.execution(as_served(spec))
        if force:
            ask_again(where, [stage])
        return carry_out(where, stage, force or asked_again)

    run.__name__ = run.__qualname__ = stage
    run.__doc__ = STAGES[stage].about
    return flow(name=stage, flow_run_name="{spec.name}", persist_result=False, validate_parameters=execution is None)(run)


FLOWS: dict[str, Flow[..., StageOutput]] = {stage: flow_of(stage) for stage in STAGES}


def __getattr__(name: str) -> Flow[..., StageOutput]:
    """A flow by its name, for importing an entry point."""
    if name in FLOWS:
        return FLOWS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def carry_out(execution: Execution, stage: str, asked_again: bool = False, aside: bool = False, **options: Any) -> StageOutput:
    """Reuse a stage's output, or run its task. Call it from within a flow.

    asked_again: `--force` has just asked for the output again. aside: neither announce the output nor remember it as the pipeline's
    latest. options: of the stage's task.
    """
    say = get_run_logger().debug if aside else get_run_logger().info
    store, identity = execution.store, execution.identities[stage]
    with store.locked(identity, on_wait=lambda: say("%s: waiting for another process that is making the same output", stage)):
        upstream = _upstream(execution, stage)
        output, reasons = assess(execution, stage, upstream)
        if output is not None and not reasons:
            say("%s: up to date", stage)
        else:
            say("%s: %s", stage, in_brief((FORCED,) if asked_again else reasons))
            output = _task(execution, stage)(execution, upstream, **options)
            say("%s: done in %.1f s", stage, output.seconds)
        if not aside:
            store.remember(execution.spec.name, identity)
        return output


def ask_again(execution: Execution, stages: Iterable[str]) -> None:
    """What `--force` does: mark outputs to be made again, as a new execution with its own MLflow run.

    The outputs stay until the new ones replace them. What follows is an ordinary run: after an interruption it continues without
    another `--force`.
    """
    from metaopt_core.tracking.runs import new_execution

    for stage in stages:
        with execution.store.locked(execution.identities[stage]):
            execution.store.ask_again(execution.identities[stage])
    new_execution(execution)


def _upstream(execution: Execution, stage: str) -> dict[str, StageOutput]:
    """The valid outputs that a stage reads. Raises UserError if one is missing."""
    found: dict[str, StageOutput | None] = {}
    for name in STAGES[stage].upstream:
        found[name], _ = assess(execution, name, {above: found[above] for above in STAGES[name].upstream})
    require(execution.spec.name, stage, found)
    return {name: output for name, output in found.items() if output is not None}


def _task(execution: Execution, stage: str) -> Callable[..., StageOutput]:
    """The stage's task, imported, with the folder for compiled loops configured."""
    task: Callable[..., StageOutput] = pkgutil.resolve_name(STAGES[stage].task)
    if "torch" in STAGES[stage].libraries:
        from metaopt_core import kernels

        kernels.configure(execution.home.compiled)
    return task
