"""Compilation changes speed alone, and its failure is no failure of training."""

from dataclasses import replace

import pytest
import torch

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta.learner import Learner
from metaopt_core.meta.objectives import AfterAdaptation
from metaopt_core.networks.mlp import MLP


def problem() -> tuple[Learner, TaskBatch]:
    learner = Learner(MLP((1, 8, 1)), classification=False, loss_scale=1.0, inner_lr=0.05)
    random = torch.Generator().manual_seed(0)
    x, qx, y, qy = (torch.randn(4, 5, 1, generator=random) for _ in range(4))
    return learner, TaskBatch(x, y, qx, qy)


@pytest.mark.slow
def test_compiled_and_eager_gradients_are_equal_to_rounding() -> None:
    learner, batch = problem()
    params = learner.network.init(0)
    eager = AfterAdaptation(learner, 2)(params, batch, 0)
    compiled = AfterAdaptation(replace(learner, compiled="cpu"), 2)(params, batch, 0)
    torch.testing.assert_close(compiled.losses, eager.losses, rtol=1e-5, atol=1e-6)
    for name in params:
        torch.testing.assert_close(compiled.gradient[name], eager.gradient[name], rtol=1e-4, atol=1e-6)


def test_where_compilation_fails_training_goes_on_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    torch._dynamo.reset()
    learner, batch = problem()
    params = learner.network.init(0)
    objective, eager = AfterAdaptation(replace(learner, compiled="cpu"), 1), AfterAdaptation(learner, 1)(params, batch, 0)
    for _ in range(2):
        torch.testing.assert_close(objective(params, batch, 0).losses, eager.losses)
    written = capsys.readouterr().err
    assert written.startswith("training continues without compilation, more slowly: ")
    assert written.count("\n") == 1
