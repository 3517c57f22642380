"""Networks for a batch of tasks against the same networks for one task, and the convolution against PyTorch's own."""

import math
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaopt_core import kernels
from metaopt_core.distributions.random import Stream
from metaopt_core.errors import UserError
from metaopt_core.networks.build import build
from metaopt_core.networks.convolution import _product_of_patches, convolve, max_pool, norm_relu
from metaopt_core.networks.network import joined
from metaopt_core.spec.networks import Conv4Spec, MLPSpec, ModelSpec, ModuleSpec, ResNet12Spec

PICTURES = (1, 28, 28)
NETWORKS: list[tuple[ModelSpec, tuple[int, ...], int]] = [
    (MLPSpec(name="mlp"), (1,), 1),
    (Conv4Spec(name="conv4", filters=8), PICTURES, 5),
    (Conv4Spec(name="conv4", filters=8, normalization="group", groups=4), PICTURES, 5),
    (Conv4Spec(name="conv4", filters=8, normalization="layer"), PICTURES, 5),
    (Conv4Spec(name="conv4", filters=8, normalization="none"), PICTURES, 5),
    (Conv4Spec(name="conv4", filters=4, pooling=True), (3, 33, 34), 5),
    (ResNet12Spec(name="resnet12", widths=(3, 4, 5, 6)), (3, 17, 16), 5),
    (ModuleSpec(name="module", path="tests.own_nets:Pictures", arguments={"filters": 4}), PICTURES, 5),
]


@pytest.mark.parametrize(("spec", "input_shape", "outputs"), NETWORKS)
def test_each_task_is_computed_by_its_own_parameters_alone(spec: ModelSpec, input_shape: tuple[int, ...], outputs: int) -> None:
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
def test_initial_parameters_are_a_function_of_seed_and_stream(spec: ModelSpec, input_shape: tuple[int, ...], outputs: int) -> None:
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


@pytest.mark.parametrize("kind", ["group", "layer"])
def test_a_prediction_depends_on_the_other_examples_of_its_batch_by_transductive_normalization_alone(
    kind: Literal["group", "layer"],
) -> None:
    x = torch.rand(2, 4, *PICTURES)
    for normalization in ("transductive", kind, "none"):
        network = build(Conv4Spec(name="conv4", filters=8, normalization=normalization), PICTURES, 5)
        params = {name: torch.stack([value] * 2) for name, value in network.init(0).items()}
        alone = torch.cat([network(params, x[:, [example]]) for example in range(4)], 1)
        assert torch.allclose(network(params, x), alone, atol=1e-6) == (normalization != "transductive")


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


def test_what_is_not_a_number_stays_so_through_normalization_and_relu() -> None:
    x = torch.ones(1, 2, 2, 2, 3)
    x[0, 0, 0, 0, 0] = math.nan
    y = norm_relu(x, torch.ones(1, 3), torch.zeros(1, 3), 1e-5)
    assert y[..., 0].isnan().all()
    assert y[..., 1:].isfinite().all()


def test_tensors_that_lie_behind_each_other_are_joined_without_a_copy() -> None:
    flat = torch.arange(12.0)
    views = [flat[:6].view(2, 3), flat[6:7], flat[7:].view(5, 1)]
    assert joined(views).data_ptr() == flat.data_ptr()
    assert torch.equal(joined(views), flat)
    gaps = [flat[:4].view(2, 2), flat[6:]]
    turned = [flat[:6].view(2, 3).T, flat[6:]]
    backwards = views[::-1]
    for tensors in (gaps, turned, backwards, [torch.ones(2), torch.zeros(3)]):
        found = joined(tensors)
        assert torch.equal(found, torch.cat([tensor.flatten() for tensor in tensors]))
        assert found.untyped_storage().data_ptr() != tensors[0].untyped_storage().data_ptr()
