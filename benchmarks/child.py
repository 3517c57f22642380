"""One contender in a fresh process: its first meta-step with time and peak memory, then a turn for each line on standard input."""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.contender import load, set_threads
from benchmarks.measure import Runner
from benchmarks.setting import make_setting
from benchmarks.workloads import MetaStep


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that what libraries print is not taken for an answer

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    request = json.loads(sys.argv[1])
    meta_step, factory = MetaStep(**request["meta_step"]), load(request["name"])
    setting = make_setting(meta_step)
    _forget_peak()
    idle, started = _memory("VmRSS"), time.perf_counter()
    contender = factory(setting)
    set_threads(contender)
    contender.run(0, 1)
    answer(first_step=time.perf_counter() - started, peak_bytes=max(0, _memory("VmHWM") - idle))
    runner: Runner | None = None
    for _ in sys.stdin:
        runner = runner or Runner(contender, meta_step.steps_at_once)
        answer(blocks=runner.turn())


def _memory(line: str) -> int:
    """Resident bytes of this process now (VmRSS) or at their peak (VmHWM); without /proc, the peak for both."""
    status = Path("/proc/self/status")
    if status.exists():
        for entry in status.read_text().splitlines():
            if entry.startswith(f"{line}:"):
                return int(entry.split()[1]) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _forget_peak() -> None:
    """Reset VmHWM, if the system supports it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


if __name__ == "__main__":
    main()
