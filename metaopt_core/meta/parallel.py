"""Chunks of tasks in parallel on a CPU's cores, each core's operations in one thread.

Tasks are independent, so cores need not wait for each other within an operation. It also means that no result depends on the
number of cores.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import local
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

_given = local()  # a thread's own number of threads before a block of `one_thread`


def threads() -> int:
    """The number of threads that PyTorch would use here: from torch.set_num_threads, OMP_NUM_THREADS, or the number of cores."""
    outside: int | None = getattr(_given, "threads", None)
    return torch.get_num_threads() if outside is None else outside


def side_by_side(function: Callable[[Part], Result], parts: Sequence[Part], device: torch.device) -> list[Result]:
    """The function's results for all parts, in order."""
    if device.type != "cpu":
        return [function(part) for part in parts]
    count = threads()
    alone = len(parts) == 1 or count == 1 or torch.autograd.profiler._is_profiler_enabled  # the profiler sees only one thread
    with one_thread():
        return [function(part) for part in parts] if alone else list(_pool(count).map(function, parts))


@contextmanager
def one_thread() -> Iterator[None]:
    """Within a block, operations run in the thread that calls them."""
    outermost, before = not hasattr(_given, "threads"), torch.get_num_threads()
    if outermost:
        _given.threads = before
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if outermost:
            del _given.threads


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "metaopt", initializer=torch.set_num_threads, initargs=(1,))
