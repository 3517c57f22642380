"""The convolutional network against the same layers of torch.nn, one task at a time."""

import pytest
import torch
from torch import Tensor, nn

from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.network import Params


def reference(network: Conv4, params: Params) -> nn.Sequential:
    """By torch.nn, with the parameters of one task."""
    layers: list[nn.Module] = []
    for block in range(4):
        weight = params[f"conv{block}.weight"].permute(3, 2, 0, 1)
        filters, channels = weight.shape[:2]
        convolution = nn.Conv2d(channels, filters, 3, stride=1 if network.pooling else 2, padding=1, bias=False)
        norm = nn.BatchNorm2d(filters, track_running_stats=False)
        convolution.weight.data, norm.weight.data = weight, params[f"norm{block}.scale"]
        norm.bias.data = params[f"norm{block}.shift"]
        layers += [convolution, norm, nn.ReLU(), *([nn.MaxPool2d(2)] if network.pooling else [])]
    head = nn.Linear(*params["linear.weight"].shape)
    head.weight.data, head.bias.data = params["linear.weight"].T, params["linear.bias"][0]
    return nn.Sequential(*layers, Positions(network.pooling), head).double()


class Positions(nn.Module):
    """What the head takes of the last positions: all of them, position by position, or their mean."""

    def __init__(self, every: bool) -> None:
        super().__init__()
        self.every = every

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1) if self.every else x.mean((2, 3))


@pytest.mark.parametrize(("pooling", "size"), [(False, (28, 28)), (False, (17, 20)), (True, (33, 35))])
def test_it_is_the_network_of_the_papers(pooling: bool, size: tuple[int, int]) -> None:
    network = Conv4(3, 5, 4, pooling=pooling, size=size)
    random = torch.Generator().manual_seed(0)
    of_tasks = []
    for seed in range(2):
        params = {name: value.double() for name, value in network.init(seed).items()}
        moved = {name: torch.randn(value.shape, generator=random, dtype=torch.float64) for name, value in params.items()}
        of_tasks.append({name: value + 0.1 * moved[name] for name, value in params.items()})
    x = torch.rand(2, 6, 3, *size, generator=random, dtype=torch.float64)
    found = network({name: torch.stack([params[name] for params in of_tasks]) for name in of_tasks[0]}, x)
    for task, params in enumerate(of_tasks):
        torch.testing.assert_close(found[task], reference(network, params)(x[task]))


def test_it_starts_as_the_paper_says_with_as_many_parameters() -> None:
    network = Conv4(1, 64, 5)
    params = network.init(0)
    assert sum(value.numel() for value in params.values()) == 9 * 64 + 3 * 9 * 64 * 64 + 4 * 2 * 64 + 64 * 5 + 5
    bound = (6 / (9 * (64 + 64))) ** 0.5  # Glorot and Bengio 2010, equation 16
    assert params["conv1.weight"].abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert params["linear.bias"].count_nonzero() == 0


@pytest.mark.parametrize(
    ("network", "shape", "expected"),
    [
        (Conv4(1, 4, 5), (3, 28, 28), r"\[3, 28, 28\]: expected pictures \[1, height, width\]"),
        (Conv4(1, 4, 5, pooling=True), (1, 28, 32), r"\[1, 28, 32\]: expected pictures \[1, 28, 28\]"),
        (Conv4(1, 4, 5), (28, 28), r"\[28, 28\]: expected pictures"),
    ],
)
def test_inputs_that_are_no_such_pictures_are_refused(network: Conv4, shape: tuple[int, ...], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        network.check(torch.Size(shape))
