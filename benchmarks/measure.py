"""How things are measured: contenders in turns within one process, and one contender in a fresh process."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from benchmarks.contender import Contender
from benchmarks.workloads import MetaStep
from metaopt_core.errors import UserError

_MATRIX = 1024  # side of the matrices whose product measures the machine
_WARM_UP_STEPS = 5

Turn = Callable[[], list[float]]
"""Runs for a moment; returns the seconds a step of each timed block."""


def interleaved(
    turns: Mapping[str, Turn], seconds: float, on_round: Callable[[float], None] = lambda _: None, rounds: int = 3
) -> dict[str, list[float]]:
    """All contenders take turns, A B C A B C …, until the time is up (at least `rounds` times), so that all see the same machine.

    `on_round` gets the seconds that are left.
    """
    found: dict[str, list[float]] = {name: [] for name in turns}
    made, started = 0, time.perf_counter()
    while made < rounds or time.perf_counter() - started < seconds:
        on_round(max(0.0, seconds - (time.perf_counter() - started)))
        for name, turn in turns.items():
            found[name] += turn()
        made += 1
    return found


class Runner:
    """A contender's turns: blocks of as many meta-steps as are drawn together, always on new tasks, for a third of a second.

    It is warmed up on construction, which also finds the fastest of several numbers of threads.
    """

    def __init__(self, contender: Contender, steps: int):
        self._contender, self._steps, self._next = contender, steps, 0
        self.threads: int | None = None
        trials: dict[int, float] = {}
        for threads in contender.threads:
            self.threads = threads
            self._block(min(steps, _WARM_UP_STEPS))
            if len(contender.threads) > 1:
                trials[threads] = self._block(_WARM_UP_STEPS)
        if trials:
            self.threads = min(trials, key=lambda threads: trials[threads])
        elif not contender.threads:
            self._block(steps)

    def turn(self, at_least: float = 0.33) -> list[float]:
        blocks: list[float] = []
        while sum(blocks) * self._steps < at_least:
            blocks.append(self._block(self._steps))
        return blocks

    def _block(self, steps: int) -> float:
        if self.threads is not None and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        started = time.perf_counter()
        self._contender.run(self._next, steps)
        self._next += steps
        return (time.perf_counter() - started) / steps


def matmul_turn(threads: int, at_least: float = 0.1) -> list[float]:
    """Seconds of a product of two 1024 × 1024 matrices in float32, repeatedly."""
    torch.set_num_threads(threads)
    a, b = torch.ones(2, _MATRIX, _MATRIX).unbind()
    blocks: list[float] = []
    while sum(blocks) < at_least:
        started = time.perf_counter()
        torch.mm(a, b)
        blocks.append(time.perf_counter() - started)
    return blocks


def matmul_gflops(seconds: float) -> float:
    return 2 * _MATRIX**3 / seconds / 1e9


class Fresh:
    """A contender in its own process, in which nothing has been computed or compiled before: benchmarks/child.py.

    first_step: seconds from after the imports to the end of the first meta-step.
    peak_bytes: the process's largest resident memory up to there, minus that when everything had been imported and loaded.
    """

    def __init__(self, name: str, meta_step: MetaStep):
        self._what = f"{name}, {meta_step}"
        with ExitStack() as stack:
            cold = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True))
            self._errors = stack.enter_context((Path(cold) / "stderr").open("w+"))
            self._process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.child", json.dumps({"name": name, "meta_step": asdict(meta_step)})],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    text=True,
                    env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": f"{cold}/inductor", "XDG_CACHE_HOME": f"{cold}/cache"},
                )
            )
            stack.callback(self._end)
            answer = self._answer()
            self.first_step: float = answer["first_step"]
            self.peak_bytes: int = answer["peak_bytes"]
            self._stack = stack.pop_all()

    def turn(self) -> list[float]:
        """One turn, like `Runner.turn`."""
        assert self._process.stdin is not None
        self._process.stdin.write("turn\n")
        self._process.stdin.flush()
        blocks: list[float] = self._answer()["blocks"]
        return blocks

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:] or [f"it ended with status {self._process.wait()}"]
            raise UserError(f"{self._what}: the measuring process failed: {last[0]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end(self) -> None:
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()  # where it reads on, it ends
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()
