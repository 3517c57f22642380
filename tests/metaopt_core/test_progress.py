"""Progress of long work: lines where no terminal is, a bar on one, nothing if it is not to be shown."""

import io
import sys

import pytest
from rich.console import Console

from metaopt_core import progress


def test_without_a_terminal_the_last_line_says_how_much_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar(2000, "adapting") as bar:
        bar.update(1, "ignored: too soon")
        bar.update(2000, "loss 0.5")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("adapting: 2,000/2,000  ")
    assert line.endswith("loss 0.5")
    assert "left" not in line


def test_nothing_is_shown_if_it_is_not_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    progress.show(False)
    try:
        with progress.bar(2, "adapting") as bar:
            bar.update(2)
    finally:
        progress.show(True)
    assert capsys.readouterr().err == ""


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
