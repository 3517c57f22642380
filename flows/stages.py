"""Each stage as a Prefect flow of its own: reuse its output where there is a valid one, else run its task under the stage's lock.

The identities are computed here, in the process that runs, so that only the spec is ever passed; a stage hands on a small
reference to its output. The stages' modules are imported when a stage runs, so that serving the flows is quick.
"""

import importlib
import shutil
from collections.abc import Iterable
from typing import Any, Literal

from prefect import Flow, flow, get_run_logger

from flows.console import without_lost_connections, without_tracebacks_for_users
from flows.planning import assess, require
from flows.versions import as_served
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.identity import identities
from metaopt_core.pipeline.stages import STAGES
from metaopt_core.pipeline.store import StageOutput, Store
from metaopt_core.spec.pipeline import PipelineSpec

StageName = Literal["generate", "train", "evaluate", "log"]

without_tracebacks_for_users()
without_lost_connections()


@flow(flow_run_name="{spec.name}", persist_result=False, validate_parameters=True)
def generate(spec: PipelineSpec, force: bool = False) -> StageOutput:
    """Materialise the task distribution p(T) and its held-out tasks."""
    return carry_out("generate", spec, force)


@flow(flow_run_name="{spec.name}", persist_result=False, validate_parameters=True)
def train(spec: PipelineSpec, force: bool = False) -> StageOutput:
    """Meta-train, and train the baselines."""
    return carry_out("train", spec, force)


@flow(flow_run_name="{spec.name}", persist_result=False, validate_parameters=True)
def evaluate(spec: PipelineSpec, force: bool = False) -> StageOutput:
    """Adapt to every meta-test task, for MAML and for the baselines."""
    return carry_out("evaluate", spec, force)


@flow(flow_run_name="{spec.name}", persist_result=False, validate_parameters=True)
def log(spec: PipelineSpec, force: bool = False) -> StageOutput:
    """Complete the MLflow run of this execution: metrics, tables, figures, model."""
    return carry_out("log", as_served(spec), force)


FLOWS: dict[str, Flow[..., StageOutput]] = {stage.name: stage for stage in (generate, train, evaluate, log)}


def carry_out(stage: str, spec: PipelineSpec, force: bool = False, aside: bool = False, **options: Any) -> StageOutput:
    """Reuse a stage's output, or run its task. Call it from within a flow.

    aside: neither announced nor remembered as what the pipeline's stage has now. options: of the stage's task.
    """
    say = get_run_logger().debug if aside else get_run_logger().info
    home = Home.current()
    store = Store(home)
    identity = identities(spec)[stage]
    if force:
        start_afresh(home, spec, [stage])
    with store.locked(identity, on_wait=lambda: say("%s: waiting for another process that is making the same output", stage)):
        upstream = _upstream(store, spec, stage)
        output, reasons = assess(store, spec, identity, upstream)
        if output is not None:
            say("%s: up to date", stage)
        else:
            say("%s: %s", stage, "; ".join(reasons))
            output = _body(stage)(spec, home, identity, upstream, **options)
            say("%s: done in %.1f s", stage, output.seconds)
        if not aside:
            store.remember(spec.name, identity)
        return output


def _upstream(store: Store, spec: PipelineSpec, stage: str) -> dict[str, StageOutput]:
    """The valid outputs that a stage reads. Raises UserError where one is missing."""
    known = identities(spec)
    found: dict[str, StageOutput | None] = {}
    for name in STAGES[stage].upstream:
        found[name], _ = assess(store, spec, known[name], {above: found[above] for above in STAGES[name].upstream})
    require(spec.name, stage, found)
    return {name: output for name, output in found.items() if output is not None}


def _body(stage: str) -> Any:
    return getattr(importlib.import_module(f"tasks.{stage}"), stage)


def start_afresh(home: Home, spec: PipelineSpec, stages: Iterable[str]) -> None:
    """What `--force` does: remove the stages' outputs, and make what follows an execution with an MLflow run of its own.

    What follows is then a plain run: it can be interrupted, and goes on without another `--force`.
    """
    from metaopt_core.tracking.runs import new_execution

    store, known = Store(home), identities(spec)
    for stage in {*stages, "log"}:
        with store.locked(known[stage]):
            store.discard(known[stage])
            shutil.rmtree(home.checkpoints / known[stage].fingerprint, ignore_errors=True)
    new_execution(home, spec)
