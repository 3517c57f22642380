"""The residual network against the same layers of torch.nn, one task at a time."""

import pytest
import torch
from torch import Tensor, nn

from metaopt_core.networks.network import Params
from metaopt_core.networks.resnet12 import ResNet12


class Reference(nn.Module):
    """By torch.nn, with the parameters of one task (Lee et al. 2019, section 4.1)."""

    def __init__(self, params: Params, blocks: int) -> None:
        super().__init__()
        self.params, self.blocks = params, blocks

    def forward(self, x: Tensor) -> Tensor:
        for block in range(self.blocks):
            short = self._normalized(nn.functional.conv2d(x, self._filters(block, "shortcut")), block, "_shortcut")
            for layer in range(3):
                x = nn.functional.leaky_relu(x, 0.1) if layer else x
                x = self._normalized(nn.functional.conv2d(x, self._filters(block, f"conv{layer}"), padding=1), block, str(layer))
            x = nn.functional.max_pool2d(nn.functional.leaky_relu(x + short, 0.1), 2)
        return x.mean((2, 3)) @ self.params["linear.weight"] + self.params["linear.bias"]

    def _filters(self, block: int, name: str) -> Tensor:
        weight = self.params[f"block{block}.{name}.weight"]
        return weight.T[..., None, None] if name == "shortcut" else weight.permute(3, 2, 0, 1)

    def _normalized(self, x: Tensor, block: int, layer: str) -> Tensor:
        scale, shift = (self.params[f"block{block}.norm{layer}.{kind}"] for kind in ("scale", "shift"))
        return nn.functional.batch_norm(x, None, None, scale, shift, training=True)


@pytest.mark.parametrize(("widths", "size"), [((3, 4), (9, 8)), ((2, 3, 4, 5), (16, 19))])
def test_it_is_the_network_of_the_paper(widths: tuple[int, ...], size: tuple[int, int]) -> None:
    network = ResNet12(3, widths, 4, size=size)
    random = torch.Generator().manual_seed(0)
    of_tasks = []
    for seed in range(2):
        params = {name: value.double() for name, value in network.init(seed).items()}
        moved = {name: torch.randn(value.shape, generator=random, dtype=torch.float64) for name, value in params.items()}
        of_tasks.append({name: value + 0.1 * moved[name] for name, value in params.items()})
    x = torch.rand(2, 5, 3, *size, generator=random, dtype=torch.float64)
    found = network({name: torch.stack([params[name] for params in of_tasks]) for name in of_tasks[0]}, x)
    for task, params in enumerate(of_tasks):
        torch.testing.assert_close(found[task], Reference(params, len(widths))(x[task]))


def test_twelve_layers_are_convolutions_on_the_way_through() -> None:
    names = list(ResNet12(3, (64, 160, 320, 640), 5).init(0))
    assert sum(".conv" in name for name in names) == 12
    assert [name for name in names if "linear" in name] == ["linear.weight", "linear.bias"]


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 15, 32), (32, 32)])
def test_inputs_that_are_no_such_pictures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected pictures \[3, ≥ 16, ≥ 16\]"):
        ResNet12(3, (2, 2, 2, 2), 5).check(torch.Size(shape))
