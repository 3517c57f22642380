"""What is made of measurements: the straight line, the turns, the report."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.measure import interleaved
from benchmarks.results import (
    ContenderResult,
    Curve,
    CurvesResult,
    GrowthResult,
    Line,
    Result,
    SpeedResult,
    Timing,
    Verdict,
    straight_line,
)

TIMING = Timing.of([0.2, 0.1, 0.3, 0.2])


def _results() -> list[Result]:
    ours = ContenderResult("metaopt", 1, 1e-15, TIMING, 50.0, 0.5, 2.0, 2**20)
    peer = ContenderResult("jax", None, None, Timing(0.4, 0.4, 0.4, 1), 25.0, 0.25, 1.0, 2**20)
    line = Line("sinusoid, by tasks", "tasks", [1, 2], [TIMING, TIMING], 0.2, 0.0, 0.0)
    return [
        SpeedResult("W1", "sinusoid", 10**10, {1: 100.0}, [ours, peer], [Verdict("time by that of jax", 0.5, 1.0)], ["a note"]),
        CurvesResult("W6", "memory", "bytes", [Curve("metaopt", [2, 4], [2.0**20, 2.0**21])], [Verdict("memory", 2.0, 1.3)], []),
        GrowthResult("W7", "growth", [line], [Verdict("deviation", 0.0, 0.15)], []),
    ]


def test_times_on_a_line_do_not_deviate() -> None:
    assert straight_line([1, 2, 4, 64], [3.0, 5.0, 9.0, 129.0]) == pytest.approx((1.0, 2.0, 0.0))


def test_the_deviation_is_relative_to_the_line() -> None:
    seconds = [1.0, 1.0, 1.0, 1.3]
    _, _, deviation = straight_line([1, 1, 1, 1.0001], seconds)
    assert deviation < 1e-6  # the line goes through both places
    intercept, slope, deviation = straight_line([1, 2, 3, 4], [1.0, 2.4, 3.0, 4.0])
    assert deviation == pytest.approx(max(abs(y / (intercept + slope * x) - 1) for x, y in enumerate([1.0, 2.4, 3.0, 4.0], 1)))
    assert deviation > 0.1


def test_turns_go_round() -> None:
    order: list[str] = []

    def turn(name: str) -> list[float]:
        order.append(name)
        return [1.0, 2.0]

    found = interleaved({"a": lambda: turn("a"), "b": lambda: turn("b")}, seconds=0)
    assert order == ["a", "b"] * 3
    assert found["a"] == [1.0, 2.0] * 3


def test_json_says_what_was_reached() -> None:
    values = json.loads(json.dumps(report.as_json(_results(), report.machine("noise"))))
    assert values["machine"]["pictures"] == "noise"
    assert [workload["verdicts"][0]["reached"] for workload in values["workloads"]] == [True, False, True]
    assert values["workloads"][0]["contenders"][0]["timing"] == pytest.approx(
        {"median": 0.2, "lower": 0.175, "upper": 0.225, "blocks": 4}
    )


def test_tables_and_figure_show_every_kind_of_result(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=140)
    for result in _results():
        report.show(result, console)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for words in (
        "jax",
        "a note",
        "reached: time by that of jax: 0.5, target ≤ 1",
        "not reached: memory: 2, target ≤ 1.3",
        "1 MiB",
    ):
        assert words in shown
    report.figure(_results(), tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 10_000
