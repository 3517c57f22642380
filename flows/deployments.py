"""`metaopt serve`: scheduled pipelines, and every stage on demand, against a running Prefect server, one run at a time.

It runs the flow that was registered here, from this process's memory. What the server says about a deployment's code (its entry
point, its pull steps) is never read, so write access to the server is not enough to run other code here.
"""

import asyncio
import contextlib
import logging
import signal
import time
import warnings
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.schedules import Cron, Interval, Schedule
from prefect.types.entrypoint import EntrypointType

from flows.form import with_fields
from flows.pipeline import pipeline
from flows.servers import answers
from flows.stage_flows import FLOWS
from metaopt_core.errors import UserError
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.schedule import CronSchedule, IntervalSchedule

_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_WITHOUT_AN_ANSWER = 15.0  # longer than a busy or restarting server needs
_SECONDS_TO_STOP = 10.0


def serve(specs: Sequence[PipelineSpec], api: str) -> None:
    """Serve until Ctrl-C or SIGTERM; an interrupted run continues from its checkpoint when it is next run.

    Raises UserError when the server is gone.
    """
    runner = _Runner(limit=1, pause_on_shutdown=True)
    for spec in specs:
        _register(runner, spec)
    with contextlib.redirect_stdout(None):  # where Prefect prints each failure to reach its server, with its traceback
        asked = asyncio.run(runner.until_stopped(api))
    if not asked:
        raise UserError(f"Prefect no longer answers at {api.removesuffix('/api')}, so serving has ended; start both again")


def _register(runner: Runner, spec: PipelineSpec) -> None:
    """Register the pipeline with its schedule, and its stages, which Prefect's page runs with a form."""
    common: dict[str, Any] = {
        "name": spec.name,
        "parameters": {"spec": spec.model_dump(mode="json")},
        "description": spec.description or None,
        "tags": ["metaopt"],
        "enforce_parameter_schema": True,
        "entrypoint_type": EntrypointType.MODULE_PATH,
    }
    runner.add_flow(pipeline, schedule=_schedule(spec), **common)
    for stage in FLOWS.values():
        runner.add_flow(stage, **common)


class _Runner(Runner):
    """Prefect's runner, except that it can be stopped even if SIGINT is ignored, and ends when its server is gone."""

    async def aadd_deployment(self, deployment: RunnerDeployment) -> UUID:
        deployment._parameter_openapi_schema = with_fields(deployment._parameter_openapi_schema)  # from the flow's signature
        return await super().aadd_deployment(deployment)

    def handle_sigterm(self, *_args: Any, **_kwargs: Any) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)

    async def until_stopped(self, api: str) -> bool:
        """Run until Ctrl-C, SIGTERM, or the end of the server. Returns whether it was stopped on purpose."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell ignores it for background jobs, and it stays ignored
            self._loop.add_signal_handler(signal.SIGINT, self._stop.set)
        serving = asyncio.create_task(self.start())
        stopping = asyncio.create_task(self._stop.wait())
        gone = asyncio.create_task(_until_gone(api))
        await asyncio.wait({serving, stopping, gone}, return_when=asyncio.FIRST_COMPLETED)
        asked, lost = stopping.done(), gone.done()
        stopping.cancel()
        gone.cancel()
        if not lost and await asyncio.to_thread(answers, api, seconds=5):
            if asked:
                await self.astop()
            await serving
        else:
            await self._abandon(serving)
        return asked

    async def _abandon(self, serving: "asyncio.Task[None]") -> None:
        """Stop the runs without telling the server, which is gone."""
        self.pause_on_shutdown = False
        # Prefect's callbacks don't expect to be cancelled, and it leaves some of what it wanted to do undone.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)
        for flow_run in self._process_manager.flow_run_ids():
            await self._process_manager.kill(flow_run, grace_seconds=_SECONDS_TO_STOP)
        serving.cancel()
        await asyncio.wait({serving})
        if not serving.cancelled():
            serving.exception()  # retrieved, because asyncio would print it otherwise


async def _until_gone(api: str) -> None:
    """Return when the server has not answered for a while."""
    answered = time.monotonic()
    async with httpx.AsyncClient(timeout=_SECONDS_WITHOUT_AN_ANSWER) as client:
        while time.monotonic() < answered + _SECONDS_WITHOUT_AN_ANSWER:
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(f"{api.rstrip('/')}/health")).is_success:
                    answered = time.monotonic()


def _schedule(spec: PipelineSpec) -> Schedule | None:
    match spec.schedule:
        case CronSchedule(cron=cron, timezone=timezone):
            return Cron(cron, timezone=timezone)
        case IntervalSchedule() as interval:
            return Interval(timedelta(seconds=interval.seconds))
        case None:
            return None
