"""Chunks run side by side on as many threads as PyTorch is told to use, now."""

import threading
from collections.abc import Iterator

import pytest
import torch

from metaopt_core.meta.parallel import one_thread, side_by_side, threads

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def used(parts: int) -> int:
    """How many threads run so many parts, each of which waits until as many have begun as there are threads."""
    together = threading.Barrier(min(parts, threads()))

    def part(_: int) -> tuple[int, int]:
        together.wait(timeout=60)
        return threading.get_ident(), torch.get_num_threads()

    names, own = zip(*side_by_side(part, range(parts), CPU), strict=True)
    assert set(own) == {1}
    return len(set(names))


@pytest.mark.parametrize("count", [2, 3])
def test_the_number_of_threads_is_what_pytorch_has_now(count: int) -> None:
    torch.set_num_threads(count)
    assert threads() == count
    assert used(count * 2) == count
    with one_thread():
        assert torch.get_num_threads() == 1
        assert used(count * 2) == count  # the block says how operations run, not how many of them at once
    assert torch.get_num_threads() == count


def test_one_thread_runs_the_parts_itself() -> None:
    torch.set_num_threads(1)
    assert side_by_side(lambda _: threading.get_ident(), range(3), CPU) == [threading.get_ident()] * 3
