"""Convolutions with weights of their own for each task, against PyTorch's."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaopt_core import kernels
from metaopt_core.networks.convolution import _product_of_patches, convolve, max_pool, norm_relu


def plain_block(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """One task after the other, by PyTorch's own convolution and elementary operations; pictures as in `convolve`."""
    tasks = []
    for pictures, filters, gamma, beta in zip(x.permute(0, 1, 4, 2, 3), weight.permute(0, 4, 3, 1, 2), scale, shift, strict=True):
        z = F.conv2d(pictures, filters, stride=2, padding=1)
        mean, variance = z.mean((0, 2, 3), keepdim=True), z.var((0, 2, 3), keepdim=True, unbiased=False)
        normal = (z - mean) / (variance + 1e-5).sqrt()
        tasks.append((normal * gamma[:, None, None] + beta[:, None, None]).relu().permute(0, 2, 3, 1))
    return torch.stack(tasks)


@pytest.mark.parametrize("loops", ["compiled", "no"])
@pytest.mark.parametrize(("channels", "filters"), [(1, 5), (3, 37), (8, 16), (2, 33)])
@pytest.mark.parametrize(("examples", "height", "width"), [(2, 7, 6), (3, 4, 5), (1, 1, 2)])
def test_a_convolutional_block_and_its_two_derivatives_equal_pytorchs_own(
    loops: str, channels: int, filters: int, examples: int, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loops == "no":
        monkeypatch.setattr(kernels, "usable", lambda *tensors: False)
    random = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=random).requires_grad_()

    inputs = leaf(2, examples, height, width, channels), leaf(2, 3, 3, channels, filters), leaf(2, filters), leaf(2, filters)
    shared = inputs[0], inputs[1][:1].expand(2, -1, -1, -1, -1), inputs[2], inputs[3]
    for arguments in (inputs, shared):
        found, expected = norm_relu(convolve(*arguments[:2]), *arguments[2:], 1e-5), plain_block(*arguments)
        torch.testing.assert_close(found, expected)
        upper = torch.randn(found.shape, dtype=torch.float64, generator=random)
        first = [torch.autograd.grad((y * upper).sum(), inputs, create_graph=True) for y in (found, expected)]
        torch.testing.assert_close(first[0], first[1])
        directions = [torch.randn(g.shape, dtype=torch.float64, generator=random) for g in first[0]]
        second = [
            torch.autograd.grad(sum((g * u).sum() for g, u in zip(gradients, directions, strict=True)), inputs)  # type: ignore[arg-type]
            for gradients in first
        ]
        torch.testing.assert_close(second[0], second[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("by_patches", [False, True])
def test_a_block_with_pooling_and_its_two_derivatives_equal_pytorchs_own(by_patches: bool) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 6, 2, dtype=torch.float64, generator=random).requires_grad_()
    weight = torch.randn(2, 3, 3, 2, 4, dtype=torch.float64, generator=random).requires_grad_()

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        tasks = zip(x.permute(0, 1, 4, 2, 3), weight.permute(0, 4, 3, 1, 2), strict=True)
        return torch.stack([F.max_pool2d(F.conv2d(one, w, padding=1).tanh(), 2).permute(0, 2, 3, 1) for one, w in tasks])

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return max_pool((_product_of_patches(x, weight, 1) if by_patches else convolve(x, weight, stride=1)).tanh())

    assert ours(x, weight).shape == (2, 3, 2, 3, 4)
    derivatives = []
    for block in (ours, plain):
        y = block(x, weight)
        first = torch.autograd.grad(y.square().sum(), [x, weight], create_graph=True)
        derivatives.append([y, *first, *torch.autograd.grad(sum(g.pow(3).sum() for g in first), [x, weight])])  # type: ignore[arg-type]
    torch.testing.assert_close(*derivatives)


def test_what_is_not_a_number_stays_so_through_normalization_and_relu() -> None:
    x = torch.ones(1, 2, 2, 2, 3)
    x[0, 0, 0, 0, 0] = math.nan
    y = norm_relu(x, torch.ones(1, 3), torch.zeros(1, 3), 1e-5)
    assert y[..., 0].isnan().all()
    assert y[..., 1:].isfinite().all()
