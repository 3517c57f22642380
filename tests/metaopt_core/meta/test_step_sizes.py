"""Step sizes, learned and fixed."""

import pytest
import torch

from metaopt_core.meta import step_sizes

PARAMS = {"weight": torch.zeros(2, 3), "bias": torch.zeros(3)}


def test_a_billion_steps_take_the_memory_of_those_that_differ() -> None:
    fixed = step_sizes.sizes({}, PARAMS, 10**9, 0.1)
    assert (len(fixed), fixed[0], fixed[10**9 - 1]) == (10**9, 0.1, 0.1)
    with pytest.raises(IndexError):
        fixed[10**9]

    learned = {"inner_lr.weight": torch.tensor([1.0, 2.0]).view(2, 1, 1), "inner_lr.bias": torch.tensor([[3.0], [4.0]])}
    by_step = step_sizes.sizes(learned, PARAMS, 10**9, 0.1).each(lambda size: tuple(10 * one for one in size))  # type: ignore[union-attr]
    found = [[one.item() for one in by_step[step]] for step in (0, 1, 2, 10**9 - 1)]
    assert found == [[10, 30], [20, 40], [20, 40], [20, 40]]
    assert len(by_step.different) == 2


def test_fewer_steps_than_there_are_sizes_for_use_the_first_ones() -> None:
    one = step_sizes.sizes({"inner_lr.*": torch.tensor([1.0, 2.0])}, PARAMS, 1, 0.1)
    assert [size if isinstance(size, float) else [value.item() for value in size] for size in one] == [[1, 1]]
    assert list(step_sizes.sizes({"inner_lr.*": torch.tensor([1.0])}, PARAMS, 0, 0.1)) == []
