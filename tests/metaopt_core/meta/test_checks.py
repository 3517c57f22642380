"""Examples and parameters that don't fit each other are refused with their shapes, with compiled loops and without them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from metaopt_core import kernels
from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta.learner import Learner
from metaopt_core.meta.objectives import AfterAdaptation
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.mlp import MLP
from metaopt_core.networks.network import Params


def mlp() -> tuple[Learner, Params, TaskBatch]:
    learner = Learner(MLP((2, 8, 1)), classification=False, loss_scale=1.0, inner_lr=0.1)
    x, y, qx, qy = (torch.rand(3, 5, width) for width in (2, 1, 2, 1))
    return learner, learner.network.init(0), TaskBatch(x, y, qx, qy)


def conv() -> tuple[Learner, Params, TaskBatch]:
    learner = Learner(Conv4(1, 4, 3), classification=True, loss_scale=1.0, inner_lr=0.1)
    x, labels = torch.rand(3, 3, 1, 8, 8), torch.arange(3).expand(3, 3)
    return learner, learner.network.init(0), TaskBatch(x, labels, x, labels)


Change = Callable[[Params, TaskBatch], tuple[Params, TaskBatch]]


def support(**changed: Callable[[Tensor], Tensor]) -> Change:
    def change(params: Params, batch: TaskBatch) -> tuple[Params, TaskBatch]:
        made = {f"support_{name}": make(getattr(batch, f"support_{name}")) for name, make in changed.items()}
        return params, replace(batch, **made)

    return change


def weights(weight: Tensor) -> Change:
    return lambda params, batch: (params, replace(batch, support_x=batch.support_x + 0, support_weight=weight))


WRONG: dict[str, tuple[Callable[[], tuple[Learner, Params, TaskBatch]], Change, str]] = {
    "inputs in float64": (
        mlp,
        support(x=Tensor.double),
        r"the parameter layer0.weight is torch.float32 on cpu, support examples t",
    ),
    "parameters in float64": (
        mlp,
        lambda params, batch: ({name: value.double() for name, value in params.items()}, batch),
        r"the parameter layer0.weight is torch.float64 on cpu, support examples torch.float32",
    ),
    "queries in float64": (
        mlp,
        lambda params, batch: (params, replace(batch, query_x=batch.query_x.double())),
        r"queries are torch.float64",
    ),
    "another number of features": (mlp, support(x=lambda x: x[..., :1]), r"inputs have 1 features, \[1\]: expected 2"),
    "two targets for one output": (
        mlp,
        support(y=lambda y: y.expand(3, 5, 2)),
        r"targets: found \[3, 5, 2\].*expected real numbers \[",
    ),
    "targets that would broadcast": (
        mlp,
        support(y=lambda y: y[..., 0]),
        r"targets: found \[3, 5\] .*expected real numbers \[3, 5, 1\]",
    ),
    "targets in float64": (mlp, support(y=Tensor.double), r"targets: found .*float64.* and inputs of torch.float32"),
    "targets of other examples": (mlp, support(y=lambda y: y[:, :4]), r"targets: found \[3, 4, 1\]"),
    "inputs without examples": (
        mlp,
        support(x=lambda x: x[:, 0]),
        r"inputs: found \[3, 2\].*expected real numbers \[tasks, examples",
    ),
    "whole numbers": (mlp, support(x=Tensor.long), r"the parameter layer0.weight is torch.float32"),
    "an empty support set": (
        mlp,
        support(x=lambda x: x[:, :0], y=lambda y: y[:, :0]),
        r"inputs: found \[3, 0, 2\].*no example: expected at least one to take a gradient on, or 0 steps",
    ),
    "a parameter turned round": (
        mlp,
        lambda params, batch: (params | {"layer0.weight": params["layer0.weight"].T.contiguous()}, batch),
        r"^the parameter layer0.weight has shape \[8, 2\]: expected \[2, 8\]$",
    ),
    "a filter too many": (
        conv,
        lambda params, batch: (params | {"conv1.weight": torch.rand(3, 3, 4, 5)}, batch),
        r"^the parameter conv1.weight has shape \[3, 3, 4, 5\]: expected \[3, 3, 4, 4\]$",
    ),
    "a parameter too few": (
        mlp,
        lambda params, batch: ({name: value for name, value in params.items() if name != "layer1.bias"}, batch),
        r"the parameter layer1.bias is missing: expected the network's, layer0.weight, ",
    ),
    "pictures of other channels": (conv, support(x=lambda x: x.expand(3, 3, 2, 8, 8)), r"expected pictures \[1, height, width\]"),
    "labels as numbers": (conv, support(y=Tensor.float), r"targets: found \[[13], 3\] of torch.float32.*expected class labels"),
    "labels as shares": (conv, support(y=lambda y: torch.eye(3).expand(3, 3, 3)), r"expected class labels, int64, \[[13], 3\]"),
}


@pytest.mark.parametrize("loops", ["compiled", "no"])
@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_named_with_its_shape(what: str, loops: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if loops == "no":
        monkeypatch.setattr(kernels, "usable", lambda *tensors: False)
    make, change, message = WRONG[what]
    learner, params, batch = make()
    params, batch = change(params, batch)
    for use in (
        lambda: AfterAdaptation(learner, 1)(params, batch, 0),
        lambda: learner.predict_queries(params, batch, 1),
        lambda: replace(learner, adaptation="safe").predict_queries(params, batch, 1),
    ):
        with pytest.raises(ValueError, match=message):
            use()


@pytest.mark.parametrize(
    ("weight", "message"),
    [(torch.ones(3, 4), r"weights: found \[3, 4\].*expected real numbers \[3, 5\]"), (torch.ones(3, 5).long(), "weights: found")],
)
def test_weights_that_do_not_fit_are_refused(weight: Tensor, message: str) -> None:
    learner, _, batch = mlp()
    with pytest.raises(ValueError, match=message):
        learner._task_loss(batch.support_x, batch.support_y, weight)


@pytest.mark.parametrize("stored", ["column-major", "float64"])
def test_how_weights_are_stored_changes_nothing(stored: str) -> None:
    learner, params, batch = mlp()
    weight = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    expected = AfterAdaptation(learner, 2)(params, replace(batch, support_weight=weight), 0)
    other = weight.T.contiguous().T if stored == "column-major" else weight.double()
    found = AfterAdaptation(learner, 2)(params, replace(batch, support_weight=other), 0)
    for name in params:
        torch.testing.assert_close(found.gradient[name], expected.gradient[name])


@pytest.mark.parametrize("make", [mlp, conv])
@pytest.mark.parametrize("loops", ["compiled", "no"])
@pytest.mark.parametrize("adaptation", ["plain", "safe"])
def test_prediction_needs_no_gradients_of_its_caller(
    make: Callable[[], tuple[Learner, Params, TaskBatch]],
    loops: str,
    adaptation: Literal["plain", "safe"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if loops == "no":
        monkeypatch.setattr(kernels, "usable", lambda *tensors: False)
    learner, params, batch = make()
    learner = replace(learner, adaptation=adaptation)
    expected = learner.predict_queries(params, batch, 2)
    with torch.no_grad():
        assert torch.equal(learner.predict_queries(params, batch, 2), expected)
    with torch.inference_mode(), pytest.raises(ValueError, match=r"2 steps of adaptation take gradients.*expected torch.no_grad"):
        learner.predict_queries(params, batch, 2)


@pytest.mark.parametrize("make", [mlp, conv])
@pytest.mark.parametrize("adaptation", ["plain", "safe"])
def test_without_support_there_is_a_prediction_without_steps(
    make: Callable[[], tuple[Learner, Params, TaskBatch]], adaptation: Literal["plain", "safe"]
) -> None:
    learner, params, batch = make()
    empty = replace(batch, support_x=batch.support_x[:, :0], support_y=batch.support_y[:, :0])
    outputs = replace(learner, adaptation=adaptation).predict_queries(params, empty, 0)
    expected = learner.network({name: value.expand(3, *value.shape) for name, value in params.items()}, batch.query_x)
    assert torch.equal(outputs, expected)
