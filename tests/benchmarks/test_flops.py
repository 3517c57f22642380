"""The count of needed arithmetic against a count of what autograd's exact meta-gradient does, and against one by hand."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.flops import meta_gradient_flops, multiply_adds
from benchmarks.workloads import OMNIGLOT_5, SINUSOID


@pytest.mark.parametrize("steps", [1, 3])
def test_an_unrolled_meta_gradient_takes_as_much_arithmetic_as_is_counted(steps: int) -> None:
    meta_step = replace(SINUSOID, tasks=1, shots=7, queries=4, inner_steps=steps)
    shapes = ((1, 40), (40,), (40, 40), (40,), (40, 1), (1,))
    initial = [torch.randn(shape, requires_grad=True) for shape in shapes]

    def loss(params: list[torch.Tensor], examples: int) -> torch.Tensor:
        x = torch.randn(examples, 1)
        for layer in range(3):
            x = torch.addmm(params[2 * layer + 1], x, params[2 * layer])
            x = x.tanh() if layer < 2 else x
        return x.square().mean()

    with FlopCounterMode(display=False) as counter:
        params = initial
        for _ in range(steps):
            gradient = torch.autograd.grad(loss(params, meta_step.shots), params, create_graph=True)
            params = [value - 0.1 * g for value, g in zip(params, gradient, strict=True)]
        torch.autograd.grad(loss(params, meta_step.queries), initial)
    assert counter.get_total_flops() == meta_gradient_flops(meta_step)


def test_the_convolutional_network_is_counted_layer_by_layer() -> None:
    first, others = 14 * 14 * 9 * 64, (7 * 7 + 4 * 4 + 2 * 2) * 9 * 64 * 64 + 64 * 5
    assert multiply_adds(OMNIGLOT_5) == (first, others)
    assert meta_gradient_flops(OMNIGLOT_5) == 2 * 32 * 5 * (4 * first + 9 * others + 2 * first + 3 * others)
