"""Nothing is timed where a contender computes something else."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from benchmarks.check import NotTheSameWorkError, check, difference
from benchmarks.contender import Factory, available, load
from benchmarks.ours import Ours
from benchmarks.setting import Setting, make_setting
from benchmarks.workloads import PYTORCH, SINUSOID, MetaStep
from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.networks.network import Params

TWO_STEPS = MetaStep(ways=None, shots=3, queries=4, tasks=3, inner_steps=2, inner_lr=0.05)


def _off_by(change: Callable[[float, Params], tuple[float, Params]]) -> Factory:
    """A contender whose results are changed."""

    class Off(Ours):
        def __init__(self, setting: Setting, dtype: torch.dtype = torch.float32):
            eager = setting.spec.model_copy(update={"train": setting.spec.train.model_copy(update={"compile": "off"})})
            super().__init__(replace(setting, spec=eager), dtype)

        def meta_gradient(self, batch: TaskBatch) -> tuple[float, Params]:
            return change(*super().meta_gradient(batch))

    return Off


def test_equal_gradients_pass_with_their_differences() -> None:
    contenders = {"torch.func": load("torch.func"), "ours": _off_by(lambda loss, gradient: (loss, gradient))}
    found = check("W0", make_setting(TWO_STEPS), contenders, "torch.func")
    assert set(found) == {"ours"}
    assert found["ours"] < 1e-12


def test_a_wrong_gradient_is_refused_with_its_name_and_size() -> None:
    def wrong(loss: float, gradient: Params) -> tuple[float, Params]:
        return loss, gradient | {"layer1.weight": gradient["layer1.weight"] * (1 + 1e-5)}

    contenders = {"torch.func": load("torch.func"), "wrong": _off_by(wrong)}
    with pytest.raises(NotTheSameWorkError, match=r"^W0: the meta-gradient of wrong is \d\.\de-06"):
        check("W0", make_setting(TWO_STEPS), contenders, "torch.func")


def test_a_wrong_loss_is_refused() -> None:
    contenders = {"torch.func": load("torch.func"), "wrong": _off_by(lambda loss, gradient: (loss * 1.001, gradient))}
    with pytest.raises(NotTheSameWorkError, match=r"^W0: the loss of wrong"):
        check("W0", make_setting(TWO_STEPS), contenders, "torch.func")


def test_gradients_of_other_parameters_are_infinitely_different() -> None:
    assert difference({"a": torch.ones(2)}, {"b": torch.ones(2)}) == float("inf")


@pytest.mark.parametrize("name", ["metaopt", "higher", "torchopt", "jax"])
def test_after_some_steps_a_contender_is_where_the_reference_is(name: str) -> None:
    found, missing = available([name])
    if missing:
        pytest.skip(f"{missing[0]} (pip install '.[bench]')")
    setting = make_setting(TWO_STEPS)
    factory = _off_by(lambda loss, gradient: (loss, gradient)) if name == "metaopt" else found[name]
    contender, reference = factory(setting), load("torch.func")(setting)
    for each in (contender, reference):
        each.run(0, 4)
    batch = setting.batches(4, 1)[0]
    loss, gradient = contender.meta_gradient(batch)
    expected, by_reference = reference.meta_gradient(batch)
    assert loss == pytest.approx(expected, rel=1e-4)
    assert difference(gradient, by_reference) < 1e-3


def test_every_pytorch_peer_has_a_place() -> None:
    assert set(PYTORCH) <= {"higher", "torchopt", "learn2learn", "torch.func"}
    assert SINUSOID.steps_at_once == 40
