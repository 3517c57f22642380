"""`python -P -m flows.sweep_worker`: a further process of `metaopt sweep`, which stops when its standard input closes."""

import json
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn


def main() -> None:
    job = json.loads(sys.stdin.readline())

    def terminate(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    def stop_when_alone() -> None:
        os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGTERM)  # training saves a checkpoint first

    signal.signal(signal.SIGTERM, terminate)
    threading.Thread(target=stop_when_alone, daemon=True).start()
    from flows.console import show_own_lines
    from flows.sweep import work
    from metaopt_core.spec.pipeline import PipelineSpec

    show_own_lines()
    work(PipelineSpec.model_validate(job["spec"]), job["parent"])


if __name__ == "__main__":
    main()
