"""A network fits the inputs that it is built for, or says why it can't."""

from typing import Literal

import pytest
import torch

from metaopt_core.errors import UserError
from metaopt_core.networks.build import build
from metaopt_core.spec.networks import Conv4Spec, MLPSpec, ModelSpec, ResNet12Spec


@pytest.mark.parametrize("shape", [(3,), (2, 5), (1, 28, 28)])
def test_an_mlp_takes_the_numbers_of_an_input_whatever_its_shape(shape: tuple[int, ...]) -> None:
    network = build(MLPSpec(name="mlp", hidden=(4,)), shape, 2)
    params = {name: value[None] for name, value in network.init(0).items()}
    assert network(params, torch.zeros(1, 6, *shape)).shape == (1, 6, 2)


@pytest.mark.parametrize("spec", [Conv4Spec(name="conv4"), ResNet12Spec(name="resnet12")], ids=lambda spec: spec.name)
def test_what_takes_pictures_refuses_inputs_that_are_none(spec: ModelSpec) -> None:
    with pytest.raises(UserError, match=rf"^train\.model\.name: {spec.name} takes pictures, .*\[3\]: expected mlp or module"):
        build(spec, (3,), 2)


@pytest.mark.parametrize("normalization", ["transductive", "per_step", "group", "none"])
def test_what_a_spec_says_of_its_network_is_so(normalization: Literal["transductive", "per_step", "group", "none"]) -> None:
    pictures: list[Conv4Spec | ResNet12Spec] = [
        Conv4Spec(name="conv4", filters=4, groups=2, normalization=normalization, pooling=True),
        ResNet12Spec(name="resnet12", widths=(2, 4), groups=2, normalization=normalization),
    ]
    for spec in pictures:
        network = build(spec, (1, 2**spec.halvings, 40), 3, steps=2)
        assert list(spec.adaptable) == [name for name in network.init(0) if name not in network.per_step]
        params = {name: value[None, 0] if name in network.per_step else value[None] for name, value in network.init(0).items()}
        assert network(params, torch.rand(1, 2, 1, 2**spec.halvings, 40)).shape == (1, 2, 3)
    perceptron = MLPSpec(name="mlp", hidden=(3, 4))
    assert list(perceptron.adaptable) == list(build(perceptron, (1,), 1).init(0))


@pytest.mark.parametrize("spec", [Conv4Spec(name="conv4", pooling=True), ResNet12Spec(name="resnet12")])
def test_pictures_that_are_too_small_for_pooling_are_refused(spec: ModelSpec) -> None:
    with pytest.raises(UserError, match=r"nothing of pictures of 28×15: expected at least 16×16"):
        build(spec, (1, 28, 15), 5)
