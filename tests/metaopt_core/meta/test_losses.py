"""Losses that are compiled, and losses that don't use all parameters."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta.inner_loop import Rule
from metaopt_core.meta.learner import Learner
from metaopt_core.meta.losses import CompiledFunctions
from metaopt_core.meta.objectives import AfterAdaptation, MetaGradientSettings
from metaopt_core.networks.user_module import user_module


def test_where_compilation_fails_every_thread_runs_the_function_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = Barrier(2)

    def no_compiler(function: Any, **_: Any) -> Any:
        def run(*_: Any) -> None:
            both.wait(timeout=60)  # until the other thread is here, too
            raise RuntimeError("no compiler")

        return run

    monkeypatch.setattr(torch, "compile", no_compiler)
    functions = CompiledFunctions(lambda params, x: (params["w"] * x).square().sum(1), graphs=False)
    w, x = {"w": torch.ones(2, 3)}, torch.arange(6.0).view(2, 3)

    def losses(_: int) -> Tensor:
        return functions.gradient(w, (x,))[0]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(losses, range(2)))
    assert all(torch.equal(one, x.square().sum(1)) for one in [*found, losses(2)])
    assert capsys.readouterr().err == "training continues without compilation, more slowly: no compiler\n"


@pytest.mark.parametrize("kind", ["exact", "first_order", "reptile", "implicit"])
def test_a_parameter_that_the_network_does_not_use_stays_where_it_is(kind: Any) -> None:
    network = user_module("tests.own_nets:Unused", {}, (1,), 1)
    learner = Learner(network, classification=False, loss_scale=1.0, inner_lr=0.1, rule=Rule(proximal=2.0 * (kind == "implicit")))
    x, y, qx, qy = (torch.rand(3, 5, 1) for _ in range(4))
    params, batch = network.init(0), TaskBatch(x, y, qx, qy)
    gradient = AfterAdaptation(learner, 2, MetaGradientSettings(kind))(params, batch, 0).gradient
    assert {name for name, value in gradient.items() if bool(value.any())} == {"linear.weight", "linear.bias"}
    for adaptation in ("plain", "safe") if learner.can_be_safe else ("plain",):
        *_, adapted = replace(learner, adaptation=adaptation).adapt(params, batch, 2)
        assert torch.equal(adapted["nothing.weight"][0], params["nothing.weight"])
        assert not torch.equal(adapted["linear.weight"][0], params["linear.weight"])
