"""A network fits the inputs that it is built for, or says why it can't."""

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
