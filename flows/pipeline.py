"""The pipeline's flow: the stages' flows, one after the other."""

from prefect import flow, get_run_logger

from flows.planning import plan, select
from flows.stages import FLOWS, StageName, start_afresh
from flows.versions import as_served
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.repetitions import named, repeats
from metaopt_core.pipeline.store import StageOutput, Store
from metaopt_core.spec.pipeline import PipelineSpec


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
    With several seeds or splits it runs once for each, and an output's name is then that of its stage and repetition.
    """
    selected, spec = select(only, first, last), as_served(spec)
    home = Home.current()
    if spec.repetitions > 1:
        runs = {}
        for one in repeats(spec):
            which = named(spec, one)
            get_run_logger().info("%s of %s:", which, spec.name)
            runs[which] = pipeline.with_options(flow_run_name=f"{spec.name}, {which}")(one, only, first, last, force)
        if "log" in selected:
            _summarize(spec, home)
        return {f"{stage}, {which}": output for which, outputs in runs.items() for stage, output in outputs.items()}
    plans = plan(spec, Store(home), selected, force)  # a missing upstream output is an error before anything runs
    if any(one.runs for one in plans):
        from metaopt_core.training.preflight import check

        check(spec)
    if force:
        start_afresh(home, spec, selected)
    return {stage: FLOWS[stage](spec) for stage in selected}


def _summarize(spec: PipelineSpec, home: Home) -> None:
    from tasks.merge import summarize

    store = Store(home)
    plans = [{entry.stage: entry.output for entry in plan(one, store)} for one in repeats(spec)]
    evaluated, logged = ([stages[name] for stages in plans] for name in ("evaluate", "log"))
    summarize(spec, home, evaluated, logged)  # type: ignore[arg-type]  # all were made just now
