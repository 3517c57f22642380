"""Batches of tasks, and many tasks that are drawn in parts."""

import pytest
import torch

from metaopt_core.distributions import batch
from metaopt_core.distributions.batch import TaskBatch, Tasks


def drawn(start: int, count: int) -> TaskBatch:
    number = torch.arange(start, start + count, dtype=torch.float32)[:, None, None]
    return TaskBatch(number.expand(-1, 4, 3), number.expand(-1, 4, 1), number.expand(-1, 5, 3), number.expand(-1, 5, 1))


@pytest.mark.parametrize(("most", "sizes"), [(2**28, [10]), (3 * 4 * (4 + 5) * 4, [3, 3, 3, 1]), (1, [1] * 10)])
def test_tasks_come_in_parts_of_so_many_bytes(most: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "PART_BYTES", most)
    parts = list(Tasks(10, drawn).parts(torch.device("cpu")))
    assert [len(part) for part in parts] == sizes
    assert torch.equal(TaskBatch.joined(parts).support_x, drawn(0, 10).support_x)


def test_what_fits_into_a_part_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(start: int, count: int) -> TaskBatch:
        calls.append((start, count))
        return drawn(start, count)

    kept = Tasks(10, counted).kept()
    before = len(calls)
    assert len(list(kept.parts(torch.device("cpu")))) == len(list(kept.parts(torch.device("cpu")))) == 1
    assert len(calls) == before
    monkeypatch.setattr(batch, "PART_BYTES", 1)
    assert Tasks(10, counted).kept().draw is counted


def test_picked_tasks_are_those_of_the_numbers() -> None:
    assert Tasks(10, drawn).picked([7, 2]).query_x[:, 0, 0].tolist() == [7, 2]


def test_what_is_padded_is_replaced_by_zeros() -> None:
    x = torch.full((1, 3, 2), torch.nan)
    x[:, 0] = 1.0
    weight = torch.tensor([[2.0, 0.0, 0.0]])
    padded = TaskBatch(x, x[..., :1], x, torch.tensor([[1, 7, 9]]), support_weight=weight, query_weight=weight)
    assert padded.support_x.tolist() == [[[1, 1], [0, 0], [0, 0]]]
    assert padded.query_y.tolist() == [[1, 0, 0]]
    assert x.isnan().any()  # the caller's own is left alone
