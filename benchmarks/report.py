"""Results for people (tables), for programs (JSON) and for a page (a figure)."""

import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, assert_never

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.results import CurvesResult, GrowthResult, Line, Result, SpeedResult, Timing, Verdict
from benchmarks.workloads import OURS

_STEPS = "inner steps"


def machine(pictures: str) -> dict[str, Any]:
    """What the numbers were measured on. pictures: `real` or `noise`."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pictures": pictures,
    }


def _processor() -> str:
    """The processor's name where the system tells it, else its kind."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def as_json(results: Sequence[Result], on: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured; each verdict with whether it was reached."""

    def workload(result: Result) -> dict[str, Any]:
        verdicts = [asdict(verdict) | {"reached": verdict.reached} for verdict in result.verdicts]
        return asdict(result) | {"verdicts": verdicts}

    return {"machine": on, "workloads": [workload(result) for result in results]}


def show(result: Result, console: Console) -> None:
    """A workload's table, its targets and its notes."""
    console.print()
    console.print(Text(f"{result.id}  {result.title}", style="bold"))
    match result:
        case SpeedResult():
            console.print(_speed(result))
            peak = ", ".join(f"{gflops:.0f} on {threads}" for threads, gflops in result.matmul_gflops.items())
            console.print(f"{result.flops / 1e9:.3g} GFLOP needed a step; a 1024³ matrix product reaches {peak} thread(s), GFLOP/s")
        case CurvesResult():
            console.print(_curves(result))
        case GrowthResult():
            for line in result.lines:
                console.print(_growth(line))
        case _:
            assert_never(result)
    for verdict in result.verdicts:
        console.print(_verdict(verdict))
    for note in result.notes:
        console.print(Text(note, style="dim"))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    return table


def _speed(result: SpeedResult) -> Table:
    table = _table("", "threads", "ms a step", "quartiles", "metaopt ÷ it", "GFLOP/s", "of matmul", "first step", "peak memory")
    ours = next(contender.timing.median for contender in result.contenders if contender.name == OURS)
    for each in sorted(result.contenders, key=lambda contender: contender.timing.median):
        table.add_row(
            each.name,
            str(each.threads or "its own"),
            _milliseconds(each.timing.median),
            f"{_milliseconds(each.timing.lower)} – {_milliseconds(each.timing.upper)}",
            f"{ours / each.timing.median:.3g}",
            f"{each.gflops:.3g}",
            f"{each.of_matmul:.0%}",
            f"{each.first_step:.1f} s",
            f"{each.peak_bytes / 2**20:,.0f} MiB",
            style="bold" if each.name == OURS else "",
        )
    return table


def _curves(result: CurvesResult) -> Table:
    steps = sorted({count for curve in result.curves for count in curve.steps})
    table = _table(_STEPS, *map(str, steps))
    for curve in result.curves:
        known = dict(zip(curve.steps, curve.values, strict=True))
        cells = (_in(result.unit, known[count]) if count in known else "–" for count in steps)
        table.add_row(curve.name, *cells, style="bold" if curve.name == OURS else "")
    return table


def _growth(line: Line) -> Table:
    table = _table(line.title, *map(str, line.values))
    table.add_row("ms a step", *(_milliseconds(timing.median) for timing in line.timings))
    table.add_row("straight line", *(_milliseconds(line.intercept + line.slope * value) for value in line.values), style="dim")
    return table


def _verdict(verdict: Verdict) -> Text:
    color, word = ("green", "reached") if verdict.reached else ("yellow", "not reached")
    return Text.assemble((f"{word}: ", color), f"{verdict.claim}: {verdict.measured:.3g}, target ≤ {verdict.at_most:.3g}")


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f}" if seconds >= 0.1 else f"{seconds * 1e3:.3g}"


def _in(unit: str, value: float) -> str:
    return f"{value / 2**20:,.0f} MiB" if unit == "bytes" else f"{value:.1f} s"


def figure(results: Sequence[Result], path: Path) -> None:
    """A panel for each workload (growth: for each line), saved as a picture."""
    panels = sum(len(result.lines) if isinstance(result, GrowthResult) else 1 for result in results)
    columns = min(3, panels)
    rows = -(-panels // columns)
    drawing, grid = plt.subplots(rows, columns, figsize=(4.8 * columns, 3.2 * rows), squeeze=False, layout="constrained")
    axes = iter(grid.flat)
    for result in results:
        match result:
            case SpeedResult():
                _draw_speed(next(axes), result)
            case CurvesResult():
                _draw_curves(next(axes), result)
            case GrowthResult():
                for line in result.lines:
                    _draw_line(next(axes), result.id, line)
            case _:
                assert_never(result)
    for unused in axes:
        unused.axis("off")
    drawing.savefig(path, dpi=150)
    plt.close(drawing)


def _draw_speed(axes: Axes, result: SpeedResult) -> None:
    ranked = sorted(result.contenders, key=lambda contender: -contender.timing.median)
    spread = [[_below(each.timing), _above(each.timing)] for each in ranked]
    colors = ["tab:red" if each.name == OURS else "tab:gray" for each in ranked]
    medians = [each.timing.median * 1e3 for each in ranked]
    bars = axes.barh([each.name for each in ranked], medians, xerr=list(zip(*spread, strict=True)), color=colors)
    axes.bar_label(bars, [_milliseconds(each.timing.median) for each in ranked], fontsize=7, padding=4)
    axes.margins(x=0.15)
    if max(medians) > 20 * min(medians):
        axes.set(xscale="log", xlim=(min(medians) / 3, max(medians) * 3))
    axes.set_xlabel("milliseconds a meta-step")
    axes.set_title(f"{result.id}  {result.title}", fontsize=7.5)


def _below(timing: Timing) -> float:
    return (timing.median - timing.lower) * 1e3


def _above(timing: Timing) -> float:
    return (timing.upper - timing.median) * 1e3


def _draw_curves(axes: Axes, result: CurvesResult) -> None:
    scale = 2**20 if result.unit == "bytes" else 1
    axes.set_prop_cycle(color=["tab:blue", "tab:orange", "tab:green", "tab:purple"])  # ours alone is red
    for curve in result.curves:
        values = [value / scale for value in curve.values]
        axes.plot(curve.steps, values, marker="o", label=curve.name, color="tab:red" if curve.name == OURS else None)
    axes.set(xlabel=_STEPS, ylabel="MiB" if result.unit == "bytes" else "seconds")
    axes.set_ylim(bottom=0)
    axes.set_title(f"{result.id}  {result.title}", fontsize=7.5)
    axes.legend(fontsize=7)


def _draw_line(axes: Axes, workload: str, line: Line) -> None:
    axes.plot(line.values, [timing.median * 1e3 for timing in line.timings], "o", color="tab:red")
    axes.plot(line.values, [(line.intercept + line.slope * value) * 1e3 for value in line.values], color="tab:gray")
    axes.set(xscale="log", yscale="log", xlabel=line.axis.replace("_", " "), ylabel="milliseconds a meta-step")
    axes.set_xticks(line.values, [str(value) for value in line.values], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_title(f"{workload}  {line.title}, within {line.deviation:.0%}", fontsize=7.5)
