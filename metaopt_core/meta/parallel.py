"""Chunks of tasks side by side on a CPU's cores, each core's operations in one thread.

Tasks are independent, so cores have no reason to wait for each other within an operation. It also means that no result depends on
how many cores there are.
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
    """As many as PyTorch would use here: what torch.set_num_threads said, OMP_NUM_THREADS, or the number of cores."""
    outside: int | None = getattr(_given, "threads", None)
    return torch.get_num_threads() if outside is None else outside


def side_by_side(function: Callable[[Part], Result], parts: Sequence[Part], device: torch.device) -> list[Result]:
    """The function of each part, in their order."""
    if device.type != "cpu":
        return [function(part) for part in parts]
    count = threads()
    alone = len(parts) == 1 or count == 1 or torch.autograd.profiler._is_profiler_enabled  # a profile is of one thread
    with one_thread():
        return [function(part) for part in parts] if alone else list(_pool(count).map(function, parts))


@contextmanager
def one_thread() -> Iterator[None]:
    """For the length of a block, operations run in the thread that calls them."""
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
