"""How a meta-gradient is computed is a function of the tasks' shape; compilation changes speed alone, and may fail."""

from dataclasses import replace

import pytest
import torch

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta.gradients import for_each_task
from metaopt_core.meta.learner import Learner
from metaopt_core.meta.objectives import AfterAdaptation, MetaGradientSettings, Plan
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.mlp import MLP
from metaopt_core.networks.network import Network
from metaopt_core.networks.user_module import UserModule
from metaopt_core.spec.train import OuterSpec
from metaopt_core.training.loop import Training, begin, step


def problem() -> tuple[Learner, TaskBatch]:
    learner = Learner(MLP((1, 8, 1)), classification=False, loss_scale=1.0, inner_lr=0.05)
    random = torch.Generator().manual_seed(0)
    x, qx, y, qy = (torch.randn(4, 5, 1, generator=random) for _ in range(4))
    return learner, TaskBatch(x, y, qx, qy)


AWKWARD: dict[str, Network] = {
    "conv4": Conv4(1, 5, 3),
    "conv4 with pooling": Conv4(1, 5, 3, pooling=True, size=(16, 16)),
    "mlp": MLP((256, 97, 67, 3)),
    "own": UserModule("tests.own_nets:Pictures", {"filters": 5, "batch": True}, (1, 16, 16), 3),
}


def pictures(tasks: int, size: int) -> TaskBatch:
    random = torch.Generator().manual_seed(0)
    x, qx = (torch.rand(tasks, n, 1, size, size, generator=random) for n in (6, 9))
    y = torch.arange(3).expand(tasks, 3)
    return TaskBatch(x, torch.cat([y] * 2, 1), qx, torch.cat([y] * 3, 1))


@pytest.mark.parametrize("name", AWKWARD)
def test_a_step_of_seven_tasks_is_the_same_bits_by_any_number_of_threads(name: str) -> None:
    network = AWKWARD[name]
    batch = pictures(7, 28 if name == "conv4" else 16)
    objective = AfterAdaptation(
        Learner(network, classification=True, loss_scale=1.0, inner_lr=0.3), 2, MetaGradientSettings(unrolled=None)
    )
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            training = Training("", objective, ..., ..., 7, 1, OuterSpec(), ..., 1, 1.0, torch.device("cpu"))  # type: ignore[arg-type]
            state = begin(training, network.init(0))
            step(training, state, batch)
            found.append(torch.cat([state.flat, state.losses.flatten()]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_the_plan_depends_on_the_shape_of_tasks_and_not_on_what_they_hold() -> None:
    network = AWKWARD["own"]  # which doesn't compute padded examples
    learner, batch = Learner(network, classification=True, loss_scale=1.0, inner_lr=0.3), pictures(20, 16)
    params = network.init(0)
    steps = 2**28 // learner.support(pictures(3, 16))[0].bytes_kept(for_each_task(params, 3))
    padded = replace(batch, support_weight=(torch.arange(6) < 3).float().expand(20, 6))
    for more, unrolled in ((0, True), (1, False)):
        objective = AfterAdaptation(learner, steps + more, MetaGradientSettings(unrolled=None))
        assert [objective.plan(params, one) for one in (batch, padded)] == [Plan(3, unrolled)] * 2


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
