"""From a workload to its result, one function for each kind."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import assert_never

import torch

from benchmarks import measure
from benchmarks.check import check
from benchmarks.contender import available
from benchmarks.flops import meta_gradient_flops
from benchmarks.measure import Fresh, Runner
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
from benchmarks.setting import make_setting
from benchmarks.workloads import OURS, FirstStep, Growth, Memory, Series, Speed, Workload

Say = Callable[[str], None]
"""Gets a few words about what is being done."""

REFERENCE = "torch.func"  # needs nothing beyond PyTorch
MEMORY_CAP = 8 * 2**30  # bytes; a peer's curve ends before it
SECONDS_CAP = 20.0  # a step of a peer that takes longer ends its curve


def run(workload: Workload, seconds: float, say: Say) -> Result:
    """Measure a workload. seconds: of timing for each; checks, warm-up and fresh processes come on top."""
    match workload:
        case Speed():
            return _speed(workload, seconds, say)
        case Memory():
            return _memory(workload, say)
        case Growth():
            return _growth(workload, seconds, say)
        case FirstStep():
            return _first_step(workload, say)
        case _:
            assert_never(workload)


def _speed(workload: Speed, seconds: float, say: Say) -> SpeedResult:
    torch._dynamo.reset()  # another workload's compiled code counts towards PyTorch's limits
    factories, notes = available(workload.contenders)
    setting, threads_before = make_setting(workload.meta_step), torch.get_num_threads()
    say("the same gradients?")
    differences = check(workload.id, setting, factories, REFERENCE)
    torch.set_num_threads(threads_before)
    fresh = {}
    for name in factories:
        say(f"first step of {name}")
        with Fresh(name, workload.meta_step) as process:
            fresh[name] = process.first_step, process.peak_bytes
    runners = {}
    for name, factory in factories.items():
        say(f"warm-up of {name}")
        runners[name] = Runner(factory(setting), workload.meta_step.steps_at_once)
        torch.set_num_threads(threads_before)
    machine = sorted({runner.threads or threads_before for runner in runners.values()})
    turns: dict[str, measure.Turn] = {name: runner.turn for name, runner in runners.items()}
    matmuls: dict[str, measure.Turn] = {f"matmul on {threads}": partial(measure.matmul_turn, threads) for threads in machine}
    found = measure.interleaved(turns | matmuls, seconds, lambda left: say(f"timing, {left:.0f} s left"))
    torch.set_num_threads(threads_before)

    timings = {name: Timing.of(found[name]) for name in runners}
    peak = {threads: measure.matmul_gflops(Timing.of(found[f"matmul on {threads}"]).median) for threads in machine}
    flops = meta_gradient_flops(workload.meta_step)
    contenders = []
    for name, runner in runners.items():
        gflops = flops / timings[name].median / 1e9
        of_matmul = gflops / peak[runner.threads or threads_before]
        contenders.append(
            ContenderResult(name, runner.threads, differences.get(name), timings[name], gflops, of_matmul, *fresh[name])
        )
    verdicts = []
    for target in workload.targets:
        present = [name for name in target.against if name in timings]
        if present:
            fastest = min(present, key=lambda name: timings[name].median)
            ratio = timings[OURS].median / timings[fastest].median
            among = "" if len(target.against) == 1 else f", the fastest of {', '.join(present)}"
            verdicts.append(Verdict(f"time by that of {fastest}{among}", ratio, target.at_most))
    if workload.left_out:
        notes.append(workload.left_out)
    return SpeedResult(workload.id, workload.title, flops, peak, contenders, verdicts, notes)


def _memory(workload: Memory, say: Say) -> CurvesResult:
    factories, notes = available(workload.contenders)
    curves = []
    for name in factories:
        steps: list[int] = []
        peaks: list[float] = []
        for count in workload.steps:
            say(f"{name}, {count} inner steps")
            with Fresh(name, replace(workload.meta_step, inner_steps=count)) as process:
                steps.append(count)
                peaks.append(process.peak_bytes)
            too_much = 2 * process.peak_bytes > MEMORY_CAP or process.first_step > SECONDS_CAP
            if name != OURS and too_much and count < workload.steps[-1]:
                notes.append(f"{name} ends at {count} inner steps: twice as many take too long, or more than 8 GiB")
                break
        curves.append(Curve(name, steps, peaks))
    ours = dict(zip(curves[0].steps, curves[0].values, strict=True))
    last = workload.steps[-1]
    claim = f"peak memory at {last} inner steps by that at {workload.base}"
    return CurvesResult(
        workload.id, workload.title, "bytes", curves, [Verdict(claim, ours[last] / ours[workload.base], workload.at_most)], notes
    )


def _growth(workload: Growth, seconds: float, say: Say) -> GrowthResult:
    lines = [_line(series, seconds / 2, say) for series in workload.series]
    verdicts = [Verdict(f"largest deviation from a straight line: {line.title}", line.deviation, workload.within) for line in lines]
    return GrowthResult(workload.id, workload.title, lines, verdicts, [])


def _line(series: Series, seconds: float, say: Say) -> Line:
    """A process for each point, all at once: code compiled for one shape doesn't meet that for another, and turns interleave."""
    with ExitStack() as stack:
        turns = {}
        for value in series.values:
            say(f"{series.title}: {value}")
            turns[str(value)] = stack.enter_context(Fresh(OURS, series.at(value))).turn
        measure.interleaved(turns, 0, lambda _: say(f"{series.title}: warm-up"), rounds=1)
        found = measure.interleaved(turns, seconds, lambda left: say(f"{series.title}: timing, {left:.0f} s left"))
    timings = [Timing.of(found[str(value)]) for value in series.values]
    medians = [timing.median for timing in timings]
    return Line(
        series.title,
        series.axis,
        list(series.values),
        timings,
        *straight_line(series.values, medians),
    )


def _first_step(workload: FirstStep, say: Say) -> CurvesResult:
    factories, notes = available(workload.contenders)
    curves = []
    for name in factories:
        seconds = []
        for count in workload.steps:
            say(f"{name}, {count} inner steps")
            with Fresh(name, replace(workload.meta_step, inner_steps=count)) as process:
                seconds.append(process.first_step)
        curves.append(Curve(name, list(workload.steps), seconds))
    claim = f"time to the first step at {workload.steps[-1]} inner steps by that at {workload.steps[0]}"
    ratio = curves[0].values[-1] / curves[0].values[0]
    return CurvesResult(workload.id, workload.title, "seconds", curves, [Verdict(claim, ratio, workload.at_most)], notes)
