"""What a user sees while a command works: our own lines, once, on standard error, and no traceback for a user's mistake.

Standard output is only for results: tables, or one JSON document.
"""

import json
import logging
import sys
from enum import IntEnum
from pathlib import Path
from typing import Any

from metaopt_core.errors import StoppedError, UserError

_OURS = tuple(Path(__file__).resolve().parent.parent / package for package in ("flows", "tasks"))
_RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


class Detail(IntEnum):
    """How much is shown of what happens. QUIET: only errors; VERBOSE: also Prefect's messages."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


_detail = Detail.NORMAL


def show(detail: Detail) -> None:
    """Set how much this process shows from now on."""
    global _detail
    from metaopt_core import progress  # most commands show none

    _detail = detail
    progress.show(detail > Detail.QUIET)


def say(line: str) -> None:
    """Print a line about what happens, unless quiet."""
    if _detail > Detail.QUIET:
        complain(line)


def complain(line: str) -> None:
    """Print a line even if quiet."""
    print(line, file=sys.stderr, flush=True)


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))


# --- what is logged -----------------------------------------------------------------------------------------------------


def without_tracebacks_for_users() -> None:
    """Let a UserError be logged as its message alone, on the console and in Prefect's UI."""
    for name in _RUN_LOGGERS:
        logger = logging.getLogger(name)
        if _plain not in logger.filters:
            logger.addFilter(_plain)


def without_lost_connections() -> None:
    """Hide Prefect's attempts to reach a server that is gone; `serve` and `run` end with one line about that."""
    for name in ("prefect.FlowRunCancellingObserver", "prefect.FlowRunSuspendingObserver", "prefect.events"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def show_own_lines() -> None:
    """Write what flows/ and tasks/ log to standard error, without Prefect's own lines, unless Prefect already shows everything."""
    if _detail == Detail.VERBOSE:
        return
    logging.raiseExceptions = False  # or handlers would print what keeps them from logging, as an error of the server
    for name in _RUN_LOGGERS:
        logging.getLogger(name).addHandler(_OwnLines(logging.INFO))


class _OwnLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        path = Path(record.pathname)
        if any(path.is_relative_to(folder) for folder in _OURS):
            say(record.getMessage())


def _plain(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if isinstance(error, UserError | StoppedError):
        record.msg, record.args, record.exc_info, record.exc_text = str(error), (), None, None
    return True
