"""Running a flow from the command line: which server it uses, what is imported meanwhile, and how it is interrupted."""

import gc
import importlib
import os
import pkgutil
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer

from flows import console, environment
from metaopt_core.errors import UserError
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.stages import STAGES
from metaopt_core.spec.pipeline import PipelineSpec


def with_prefect(spec: PipelineSpec, home: Home, running: Sequence[str], module: str, call: Callable[[Any], Any]) -> Any:
    """Run a flow against a running Prefect server, or else against one embedded in this run.

    running: the stages whose tasks it will need. call: runs the flow, given the module that defines it.
    """
    from flows.servers import prefect_api

    api = prefect_api(home)
    embedded = None
    if api is None:
        from flows.embedded_server import EmbeddedServer

        embedded = EmbeddedServer(home)
        api = embedded.api
        console.say("starting Prefect for this run")  # without its address, which has no page
    else:
        console.say(f"Prefect: {api.address.removesuffix('/api')}")
    api.use()
    # The server takes seconds to start, and so do these imports: they happen in parallel. Imported modules stay, so the garbage
    # collector need not scan them, which saves seconds here and when the interpreter exits.
    gc.disable()
    flows = importlib.import_module(module)
    for stage in running:
        pkgutil.resolve_name(STAGES[stage].task)
    tracking = importlib.import_module("metaopt_core.tracking.connection")
    if tracking.tracking_uri(home, spec) == tracking.embedded_uri(home):
        tracking.initialize(home)
    gc.freeze()
    gc.enable()
    if embedded is not None:
        embedded.wait()
    console.show_own_lines()
    return call(flows)


def trace(spec: PipelineSpec, home: Home, running: Sequence[str]) -> Path:
    """Have training write its traces to a new folder. Returns the folder."""
    if not any(STAGES[stage].trains for stage in running):
        raise UserError("--profile: training would not run, and nothing else can be profiled; --force runs what is up to date")
    traces = home.traces / f"{spec.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    os.environ[environment.TRACES] = str(traces)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its lines on standard error would break the progress bars
    return traces


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which ends a run like Ctrl-C."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C or SIGTERM ends the command with one line instead of a traceback. Training has saved a checkpoint by then."""

    def terminate(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt as interruption:
        number = signal.SIGTERM if isinstance(interruption, _TerminatedError) else signal.SIGINT
        console.complain(f"interrupted; what was finished is kept, and training continues from its last iteration: {_again()}")
        raise typer.Exit(128 + number) from None  # the status that a shell reports
    finally:
        signal.signal(signal.SIGTERM, before)


def _again() -> str:
    """The command that continues: with --force it would begin anew."""
    words = [word for word in sys.argv[1:] if word != "--force"]
    return shlex.join([environment.program(), *words])
