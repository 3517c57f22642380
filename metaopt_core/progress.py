"""Progress of long work on standard error: a bar on a terminal, a plain line now and then elsewhere (such as in logs)."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

_SECONDS_BETWEEN_LINES = 15.0
_NARROW = 100  # columns; narrower terminals get the numbers without a bar
_NUMBERS = 36  # columns that the numbers may need, with the gaps between them

_shown = True


def show(shown: bool) -> None:
    """Set whether this process shows progress."""
    global _shown
    _shown = shown


class Bar:
    """Receives how far the work has got."""

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
        left = f"{(self._total - completed) / speed:,.0f} s left" if speed and completed < self._total else ""
        parts = [f"{self._description}: {_of(completed, self._total)}", _rate(speed), left, note]
        sys.stderr.write("  ".join(part for part in parts if part) + "\n")
        sys.stderr.flush()


class _Completed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(_of(int(task.completed), int(task.total or 0)), style="green")


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(_rate(task.speed or 0), style="cyan")


def _of(completed: int, total: int) -> str:
    return f"{completed:,}/{total:,}"


def _rate(speed: float) -> str:
    return f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2f}/s"


def _text(width: int) -> Column:
    """A column of texts, which are truncated so that the numbers never are."""
    return Column(no_wrap=True, overflow="ellipsis", max_width=width)


@contextmanager
def bar(total: int, description: str, completed: int = 0) -> Iterator[Bar]:
    """A progress bar for the length of a block, which starts at `completed` of `total`."""
    console = Console(stderr=True)
    if not _shown:
        yield Bar()
        return
    if not console.is_terminal:
        yield _Lines(total, description, completed)
        return
    narrow = console.width < _NARROW
    room = console.width - _NUMBERS
    columns = [
        TextColumn("{task.description}", table_column=_text(room * (55 if narrow else 40) // 100)),
        _Completed(table_column=Column(no_wrap=True, justify="right")),
        _Speed(table_column=Column(no_wrap=True, justify="right")),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", table_column=_text(room * (45 if narrow else 35) // 100)),
    ]
    if not narrow:
        columns.insert(1, BarColumn(bar_width=None))
    with Progress(*columns, console=console, speed_estimate_period=10) as progress:
        yield _RichBar(progress, progress.add_task(description, total=total, completed=completed, note=""))
