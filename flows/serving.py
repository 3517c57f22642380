"""`metaopt serve`: scheduled pipelines, and every stage on demand, against a running Prefect server, one run at a time."""

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

from prefect import Flow
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.schedules import Cron, Interval, Schedule
from prefect.types.entrypoint import EntrypointType

from flows.pipeline import pipeline
from flows.stages import FLOWS
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.schedule import CronSchedule, IntervalSchedule


def deployments(spec: PipelineSpec) -> list[RunnerDeployment]:
    """The pipeline with its schedule, and its stages to be run from Prefect's UI with a form."""
    parameters: dict[str, Any] = {"spec": spec.model_dump(mode="json")}
    common: dict[str, Any] = {
        "name": spec.name,
        "parameters": parameters,
        "description": spec.description or None,
        "tags": ["metaopt"],
        "enforce_parameter_schema": True,
        "entrypoint_type": EntrypointType.MODULE_PATH,  # whatever the folder that it is served from
    }
    whole = _deployment(pipeline, schedule=_schedule(spec), **common)
    return [whole, *(_deployment(stage, **common) for stage in FLOWS.values())]


def serve(specs: Sequence[PipelineSpec]) -> None:
    """Serve until Ctrl-C or SIGTERM; what a run was doing then goes on with the next one."""
    runner = _Runner(limit=1, pause_on_shutdown=True)
    for spec in specs:
        for deployment in deployments(spec):
            runner.add_deployment(deployment)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(runner.start())


class _Runner(Runner):
    """Prefect's runner, but SIGTERM stops it as Ctrl-C does: its own handler leaves the event loop with a traceback."""

    def handle_sigterm(self, *_args: Any, **_kwargs: Any) -> None:
        signal.raise_signal(signal.SIGINT)


def _deployment(flow: Flow[..., Any], **options: Any) -> RunnerDeployment:
    return cast(RunnerDeployment, flow.to_deployment(**options))  # a coroutine only where an event loop is running


def _schedule(spec: PipelineSpec) -> Schedule | None:
    match spec.schedule:
        case CronSchedule(cron=cron, timezone=timezone):
            return Cron(cron, timezone=timezone)
        case IntervalSchedule() as interval:
            return Interval(timedelta(seconds=interval.seconds))
        case None:
            return None
