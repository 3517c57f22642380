"""Chunks of tasks side by side on a CPU's cores, each core's operations in one thread.

Tasks are independent, so cores have no reason to wait for each other within an operation. It also means that no result depends on
how many cores there are.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

THREADS = torch.get_num_threads()
"""As many as PyTorch would use: OMP_NUM_THREADS, else the number of cores."""


def side_by_side(function: Callable[[Part], Result], parts: Sequence[Part], device: torch.device) -> list[Result]:
    """The function of each part, in their order."""
    if device.type != "cpu":
        return [function(part) for part in parts]
    alone = len(parts) == 1 or THREADS == 1 or torch.autograd.profiler._is_profiler_enabled  # a profile is of one thread
    with one_thread():
        return [function(part) for part in parts] if alone else list(_pool().map(function, parts))


@contextmanager
def one_thread() -> Iterator[None]:
    """For the length of a block, operations run in the thread that calls them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, "metaopt", initializer=torch.set_num_threads, initargs=(1,))
