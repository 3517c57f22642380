"""Progress of long work on standard error: a bar on a terminal, a plain line now and then elsewhere (in logs, say)."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_SECONDS_BETWEEN_LINES = 15.0


class Bar:
    """Something that is told how far the work is."""

    def update(self, completed: int, note: str = "") -> None:
        """`completed` of the total are done; `note` is shown beside it."""


class _RichBar(Bar):
    def __init__(self, progress: Progress, task: int):
        self._progress, self._task = progress, task

    def update(self, completed: int, note: str = "") -> None:
        self._progress.update(self._task, completed=completed, note=note)  # type: ignore[arg-type]


class _Lines(Bar):
    def __init__(self, total: int, description: str, completed: int):
        self._total, self._description, self._first = total, description, completed
        self._start = self._spoke = time.monotonic()

    def update(self, completed: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self._spoke < _SECONDS_BETWEEN_LINES and completed < self._total:
            return
        self._spoke = now
        speed = (completed - self._first) / max(now - self._start, 1e-9)
        left = (self._total - completed) / speed if speed else float("inf")
        sys.stderr.write(f"{self._description}: {completed}/{self._total}  {speed:.1f}/s  {left:.0f} s left  {note}\n")
        sys.stderr.flush()


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f}/s" if task.speed and task.speed >= 10 else f"{task.speed or 0:.2f}/s", style="cyan")


@contextmanager
def bar(total: int, description: str, completed: int = 0) -> Iterator[Bar]:
    """A progress bar for the length of a block, which starts at `completed` of `total`."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(total, description, completed)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, speed_estimate_period=10) as progress:
        yield _RichBar(progress, progress.add_task(description, total=total, completed=completed, note=""))
