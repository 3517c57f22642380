"""What is told of long work: lines where no terminal is, a bar on one, nothing where it is switched off."""

import io
import sys

import pytest
from rich.console import Console

from metaopt_core import progress


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    return clock


def test_a_line_comes_every_quarter_of_a_minute_and_at_the_end(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar(100, "training") as bar:
        for second in range(1, 41):
            now[0] += 1
            bar.update(second * 2, "loss 0.1")
        now[0] += 10
        bar.update(100)
    assert capsys.readouterr().err.splitlines() == [
        "training: 30/100  2.00/s  35 s left  loss 0.1",
        "training: 60/100  2.00/s  20 s left  loss 0.1",
        "training: 100/100  2.00/s",
    ]


def test_speed_is_of_what_was_done_since_it_was_resumed(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar(5_000, "training", completed=4_000) as bar:
        now[0] += 20
        bar.update(4_400)
    assert capsys.readouterr().err == "training: 4,400/5,000  20/s  30 s left\n"


def test_nothing_is_told_where_it_is_switched_off(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress.show(False)
    try:
        with progress.bar(10, "training") as bar:
            now[0] += 100
            bar.update(10)
    finally:
        progress.show(True)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with progress.bar(10, "adapting to new tasks") as bar:
        bar.update(10, "MAML")
    shown = capsys.readouterr().err
    assert "adapting to new tasks" in shown
    assert "10/10" in shown
    assert "MAML" in shown


@pytest.mark.parametrize("width", [80, 120])
def test_a_bar_fits_into_the_terminal_with_its_numbers(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()

    def console(**_: object) -> Console:
        return Console(file=shown, force_terminal=True, width=width, color_system=None, force_interactive=True)

    monkeypatch.setattr(progress, "Console", console)
    with progress.bar(35_000, "choosing the step size of pre-trained, a long name") as bar:
        bar.update(35_000, "no adaptation, a variant with a long name")
    lines = [line for line in shown.getvalue().replace("\r", "\n").splitlines() if "35,000" in line]
    assert "35,000/35,000" in lines[-1]
    assert sys.stderr is not shown
    assert max(len(_without_codes(line)) for line in lines) <= width


def _without_codes(line: str) -> str:
    return "".join(
        part.partition("h")[2] if part.startswith("[?") else part.partition("K")[2] or part for part in line.split("\x1b")
    )
