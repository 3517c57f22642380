"""Networks for a batch of tasks against the same networks for one task, and the convolution against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from metaopt_core.convolution import convolve
from metaopt_core.distributions.random import Stream
from metaopt_core.models import build
from metaopt_core.spec.models import Conv4Spec, MLPSpec

NETWORKS = [(MLPSpec(name="mlp"), (1,), 1), (Conv4Spec(name="conv4", filters=8), (1, 28, 28), 5)]


@pytest.mark.parametrize(("spec", "input_shape", "outputs"), NETWORKS)
def test_each_task_is_computed_by_its_own_parameters_alone(
    spec: MLPSpec | Conv4Spec, input_shape: tuple[int, ...], outputs: int
) -> None:
    network = build(spec, input_shape, outputs)
    of_tasks = [network.init(seed) for seed in range(3)]
    params = {name: torch.stack([task[name] for task in of_tasks]) for name in of_tasks[0]}
    x = torch.rand(3, 4, *input_shape)
    together = network(params, x)
    assert together.shape == (3, 4, outputs)
    for task in range(3):
        alone = network({name: value[None] for name, value in of_tasks[task].items()}, x[task : task + 1])
        torch.testing.assert_close(together[task], alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("spec", "input_shape", "outputs"), NETWORKS)
def test_initial_parameters_are_a_function_of_seed_and_stream(
    spec: MLPSpec | Conv4Spec, input_shape: tuple[int, ...], outputs: int
) -> None:
    network = build(spec, input_shape, outputs)
    first, again, other, baseline = network.init(0), network.init(0), network.init(1), network.init(0, Stream.BASELINE_PARAMETERS)
    weight = network.head[0]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first[weight], other[weight])
    assert not torch.equal(first[weight], baseline[weight])
    weights = [value.flatten()[:8] for name, value in first.items() if name.endswith("weight")]
    assert not any(torch.allclose(a / a.abs().max(), b / b.abs().max()) for a in weights for b in weights if a is not b)


def test_initial_mlp_weights_fill_their_bounds() -> None:
    weight = build(MLPSpec(name="mlp", hidden=(400, 400)), (1,), 1).init(0)["layer1.weight"]
    bound = 400**-0.5
    assert weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=1e-2)


@pytest.mark.parametrize("groups", [1, 3])
def test_convolution_and_its_second_derivative_equal_pytorchs_own(groups: int) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2 * groups, 7, 7, dtype=torch.float64, generator=random, requires_grad=True)
    weight = torch.randn(4 * groups, 2, 3, 3, dtype=torch.float64, generator=random, requires_grad=True)
    convolved = {
        "ours": convolve(x, weight, stride=2, padding=1, groups=groups),
        "native": F.conv2d(x, weight, stride=2, padding=1, groups=groups),
    }
    torch.testing.assert_close(convolved["ours"], convolved["native"])
    derivatives = {}
    for name, y in convolved.items():
        first = torch.autograd.grad(y.tanh().sum(), (x, weight), create_graph=True)
        derivatives[name] = (*first, *torch.autograd.grad(sum(g.square().sum() for g in first), (x, weight)))  # type: ignore[arg-type]
    for found, expected in zip(derivatives["ours"], derivatives["native"], strict=True):
        torch.testing.assert_close(found, expected)
    assert torch.autograd.gradgradcheck(lambda a, b: convolve(a, b, 2, 1, groups), (x, weight))
