"""What a user sees of Prefect's logs: our own lines, once, and never a traceback for a mistake of the user's."""

import logging
import sys
from pathlib import Path

from metaopt_core.errors import StoppedError, UserError

_OURS = tuple(Path(__file__).resolve().parent.parent / package for package in ("flows", "tasks"))
_RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


def without_tracebacks_for_users() -> None:
    """Let a UserError be logged as its message alone, on the console and in Prefect's UI."""
    for name in _RUN_LOGGERS:
        logger = logging.getLogger(name)
        if _plain not in logger.filters:
            logger.addFilter(_plain)


def without_lost_connections() -> None:
    """Say nothing of Prefect's attempts to reach a server that is gone; whoever serves, or runs, ends with one line about that."""
    for name in ("prefect.FlowRunCancellingObserver", "prefect.FlowRunSuspendingObserver", "prefect.events"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _plain(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if isinstance(error, UserError | StoppedError):
        record.msg, record.args, record.exc_info, record.exc_text = str(error), (), None, None
    return True


class OwnLines(logging.Handler):
    """Writes what flows/ and tasks/ log to standard error, and none of what Prefect says beside it."""

    @classmethod
    def install(cls) -> None:
        for name in _RUN_LOGGERS:
            logging.getLogger(name).addHandler(cls(logging.INFO))

    def emit(self, record: logging.LogRecord) -> None:
        path = Path(record.pathname)
        if any(path.is_relative_to(folder) for folder in _OURS):
            print(record.getMessage(), file=sys.stderr, flush=True)
