"""What all networks have in common, whatever they are."""

import pytest
import torch

from metaopt_core.distributions.random import Stream
from metaopt_core.networks.build import build
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


WITH_BATCH_NORM = ModuleSpec(name="module", path="tests.own_nets:Pictures", arguments={"batch": True})


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("spec", "input_shape", "outputs"), [*NETWORKS, (WITH_BATCH_NORM, PICTURES, 5)])
def test_features_by_shared_parameters_and_the_last_layer_make_the_outputs(
    spec: ModelSpec, input_shape: tuple[int, ...], outputs: int, weighted: bool
) -> None:
    network, tasks = build(spec, input_shape, outputs), 3
    params, x = network.init(0), torch.rand(tasks, 4, *input_shape, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([[1.0, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 0]]) if weighted else None
    expected = network({name: value.expand(tasks, *value.shape) for name, value in params.items()}, x, weight)
    body = {name: value for name, value in params.items() if name not in network.head}
    features = network.features(body, x, weight)
    assert features.shape == (tasks, 4, network.width)
    kept = torch.ones(tasks, 4, 1) if weight is None else (weight > 0)[..., None]
    torch.testing.assert_close(network.last(params, features) * kept, expected * kept, rtol=1e-4, atol=1e-5)


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
