"""The perceptron's initial weights, and its function."""

import pytest
import torch
from torch import nn

from metaopt_core.networks.build import build
from metaopt_core.networks.mlp import MLP
from metaopt_core.spec.networks import MLPSpec


def test_initial_mlp_weights_fill_their_bounds() -> None:
    weight = build(MLPSpec(name="mlp", hidden=(400, 400)), (1,), 1).init(0)["layer1.weight"]
    bound = 400**-0.5
    assert weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=1e-2)


def test_it_is_a_perceptron_whose_parameters_come_apart_by_their_names() -> None:
    network = MLP((6, 5, 4, 2))
    params = {name: value.double() for name, value in network.init(0).items()}
    x = torch.randn(1, 7, 2, 3, dtype=torch.float64)
    layers = [nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)]
    for layer, linear in enumerate(layers[::2]):
        assert isinstance(linear, nn.Linear)
        linear.weight.data, linear.bias.data = params[f"layer{layer}.weight"].T, params[f"layer{layer}.bias"][0]
    expected = nn.Sequential(nn.Flatten(), *layers)(x[0])
    torch.testing.assert_close(network({name: value[None] for name, value in params.items()}, x)[0], expected)
    packed = torch.cat([value.flatten() for value in params.values()])
    unpacked = network.unpack(packed.expand(3, -1))
    assert all(torch.equal(unpacked[name], value.expand(3, *value.shape)) for name, value in params.items())


def test_inputs_of_another_number_of_features_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inputs have 4 features, \[2, 2\]: expected 6"):
        MLP((6, 1)).check(torch.Size((2, 2)))
