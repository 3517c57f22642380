"""By whose statistics examples are normalized."""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaopt_core.networks.build import build
from metaopt_core.networks.normalization import Given, Normalization, Noted
from metaopt_core.spec.networks import Conv4Spec

PICTURES = (1, 28, 28)


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


def batch() -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures [tasks, examples, height, width, channels] of two tasks, with a scale and a shift for each task."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 5, 6, generator=random, dtype=torch.float64)
    return x, {f"norm.{kind}": torch.randn(2, 6, generator=random, dtype=torch.float64) for kind in ("scale", "shift")}


@pytest.mark.parametrize(("kind", "groups"), [("group", 1), ("group", 3), ("group", 6), ("layer", 8)])
def test_examples_alone_are_normalized_as_by_torchs_group_norm(kind: Literal["group", "layer"], groups: int) -> None:
    x, params = batch()
    found = Normalization(kind, groups)(params, "norm", x)
    for task in range(2):
        pictures = x[task].permute(0, 3, 1, 2)
        scale, shift = params["norm.scale"][task], params["norm.shift"][task]
        expected = F.group_norm(pictures, 1 if kind == "layer" else groups, scale, shift)
        torch.testing.assert_close(found[task], expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize("weighted", [False, True])
def test_a_batch_is_normalized_as_by_torchs_batch_norm(weighted: bool) -> None:
    x, params = batch()
    weight = torch.ones(2, 3) if weighted else None
    found = Normalization("transductive")(params, "norm", x, weight)
    for task in range(2):
        pictures = x[task].permute(0, 3, 1, 2)
        expected = F.batch_norm(pictures, None, None, params["norm.scale"][task], params["norm.shift"][task], training=True)
        torch.testing.assert_close(found[task], expected.permute(0, 2, 3, 1))
    relu = Normalization("transductive").with_relu(params, "norm", x, weight)
    torch.testing.assert_close(relu, found.relu())


def test_statistics_that_were_noted_normalize_like_the_batch_that_they_are_of() -> None:
    x, params = batch()
    noted = Noted()
    expected = noted({name: value[:1] for name, value in params.items()}, "norm", x[:1])
    mean, variance = noted.noted["norm"]
    given = Given(statistics={"norm": (mean[0], variance[0])})
    torch.testing.assert_close(given({name: value[:1] for name, value in params.items()}, "norm", x[:1]), expected)
    alone = given({name: value[:1] for name, value in params.items()}, "norm", x[:1, :1])
    torch.testing.assert_close(alone, expected[:, :1])  # whatever stands beside an example


def test_without_normalization_there_is_a_shift_alone() -> None:
    x, params = batch()
    plain = Normalization("none")
    assert list(plain.init("norm", 6)) == ["norm.shift"]
    found = plain({"norm.shift": params["norm.shift"]}, "norm", x)
    torch.testing.assert_close(found, x + params["norm.shift"][:, None, None, None])


def test_each_step_has_a_row_of_its_own() -> None:
    per_step = Normalization("per_step", steps=3)
    params = per_step.init("norm", 4)
    assert {name: value.shape for name, value in params.items()} == {"norm.scale": (3, 4), "norm.shift": (3, 4)}
    assert per_step.per_step({**params, "linear.weight": torch.ones(1)}) == {"norm.scale", "norm.shift"}
    assert not Normalization("transductive").per_step(params)
