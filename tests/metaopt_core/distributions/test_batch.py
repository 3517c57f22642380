"""Batches of tasks, and many tasks that are drawn in parts."""

from dataclasses import replace

import pytest
import torch

from metaopt_core.distributions import batch
from metaopt_core.distributions.batch import Episode, TaskBatch, Tasks, with_own_shots
from metaopt_core.distributions.random import Stream


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


def test_examples_of_batches_without_weights_weigh_one_beside_others() -> None:
    weight = torch.tensor([[1.0, 0, 2, 0]])
    padded = replace(drawn(1, 1), support_weight=weight)
    joined = TaskBatch.joined([drawn(0, 1), padded, drawn(2, 2)])
    assert joined.query_weight is None
    assert joined.support_weight is not None
    assert joined.support_weight.tolist() == [[1] * 4, weight[0].tolist(), [1] * 4, [1] * 4]
    assert joined[1:2].support_x.equal(padded.support_x)


RANGE = Episode(ways=2, shots=4, queries=1, fewest=2)


def classified(start: int, count: int) -> TaskBatch:
    """Two classes of four support examples each; x is the place of an example in its class, from 1 on."""
    x = torch.arange(1.0, 5).repeat(2).expand(count, 8)[..., None]
    y = torch.arange(2).repeat_interleave(4).expand(count, 8)
    return TaskBatch(x, y, x, y)


def test_each_task_has_its_own_number_of_shots_whatever_the_others_are() -> None:
    def counts(start: int, count: int) -> list[list[float]]:
        tasks = with_own_shots(classified(start, count), RANGE, 7, Stream.TRAIN_SHOTS, start)
        assert tasks.support_weight is not None
        kept = tasks.support_weight.view(count, 2, 4)
        assert (kept.sort(dim=2, descending=True).values == kept).all()  # the first ones of a class
        assert (tasks.support_x[..., 0] > 0).equal(tasks.support_weight > 0)
        return [list(of_task) for of_task in kept.sum(2).tolist()]

    found = counts(0, 300)
    assert all(first == second for first, second in found)  # every class has as many
    shots = [first for first, _ in found]
    assert {*shots} == {2, 3, 4}
    assert all(75 < shots.count(number) < 125 for number in (2, 3, 4))
    assert counts(10, 20) == found[10:30]


def test_one_number_of_shots_changes_nothing() -> None:
    tasks = classified(0, 3)
    assert with_own_shots(tasks, Episode(2, 4, 1), 7, Stream.TRAIN_SHOTS, 0) is tasks


def test_what_weighs_nothing_stays_so_where_tasks_have_their_own_numbers_of_shots() -> None:
    weight = torch.tensor([0.5, 0, 0, 0]).repeat(2).expand(3, 8)
    tasks = with_own_shots(replace(classified(0, 3), support_weight=weight), RANGE, 7, Stream.TRAIN_SHOTS, 0)
    assert tasks.support_weight is not None
    assert tasks.support_weight.equal(weight)


def test_an_origin_goes_where_its_task_goes() -> None:
    tasks = replace(drawn(0, 4), origin=torch.arange(4.0)[:, None])
    parts = [part.origin for part in tasks.split(3)]
    assert [part.flatten().tolist() for part in parts if part is not None] == [[0, 1, 2], [3]]
    joined = TaskBatch.joined([tasks[2:], tasks[[0]]]).to("cpu").origin
    assert joined is not None
    assert joined.flatten().tolist() == [2, 3, 0]
