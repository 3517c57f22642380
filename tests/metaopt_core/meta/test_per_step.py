"""Parameters of which every inner step has a row of its own."""

from dataclasses import replace

import pytest
import torch

from metaopt_core import kernels
from metaopt_core.errors import UserError
from metaopt_core.meta.inner_loop import Rule
from metaopt_core.meta.learner import adapting
from metaopt_core.meta.objectives import EXACT, MetaGradientSettings
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.normalization import Normalization
from metaopt_core.networks.resnet12 import ResNet12
from tests.metaopt_core.meta.plain import PLAIN_LOOP_TOLERANCE, conv_problem, doubled, ours, plain_loop, relative_error


@pytest.mark.parametrize("network", [Conv4, ResNet12])
@pytest.mark.parametrize("loops", ["compiled loops", "no loops"])
def test_every_step_has_its_own_normalization(network: type[Conv4 | ResNet12], loops: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if loops == "no loops":
        monkeypatch.setattr(kernels, "usable", lambda *tensors: False)
    learner, _, batch = conv_problem()
    own = Normalization("per_step", steps=3)
    learner = replace(learner, network=Conv4(1, 4, 3, own) if network is Conv4 else ResNet12(1, (2, 3), 3, own))
    learner = replace(learner, rule=Rule(adapts=adapting(learner.network, "all")))
    random = torch.Generator().manual_seed(5)
    params = {
        name: value + 0.3 * torch.rand(value.shape, generator=random) if name in learner.network.per_step else value
        for name, value in learner.network.init(0).items()
    }
    params = doubled(params)
    assert {value.shape for name, value in params.items() if "norm" in name} <= {(3, 4), (3, 2), (3, 3)}
    several = MetaGradientSettings(multi_step_until=100)
    for steps, settings in (
        (2, EXACT),
        (5, MetaGradientSettings(unrolled=True)),
        (4, several),
        (3, MetaGradientSettings("first_order", multi_step_until=100)),
    ):
        first, weights = settings.kind == "first_order", settings.weights(steps, 10)
        loss, gradient = plain_loop(learner, params, batch, steps, first, weights)
        found = ours(learner, params, batch, steps, settings, 10)
        assert found.losses.mean().item() == pytest.approx(loss.item(), rel=PLAIN_LOOP_TOLERANCE)
        assert relative_error(list(found.gradient.values()), gradient) < PLAIN_LOOP_TOLERANCE
        used = [bool(row.abs().max() > 0) for row in found.gradient["norm0.scale" if network is Conv4 else "block0.norm0.scale"]]
        assert used == [step < steps for step in range(3)]
    curves = learner.curves(params, batch, 5).loss.mean(0)
    for steps in range(1, 6):
        assert curves[steps].item() == pytest.approx(plain_loop(learner, params, batch, steps)[0].item(), rel=PLAIN_LOOP_TOLERANCE)


def test_a_step_s_own_parameters_do_not_adapt() -> None:
    network = Conv4(1, 4, 3, Normalization("per_step", steps=2))
    assert adapting(network, "all") == {name for name in network.init(0) if "norm" not in name}
    assert adapting(network, "body") == {f"conv{block}.weight" for block in range(4)}
    with pytest.raises(UserError, match=r"adapts: norm0.scale is the name of no parameter: expected some of conv0.weight, "):
        adapting(network, ("norm0.scale",))
