"""Whether torch.compile is used, and what a run says about it, follows from the spec, the network and the machine."""

from typing import Any

import pytest
import torch

from metaopt_core import kernels
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.training.compilation import COMPILE_FROM_ITERATIONS, computed_by, device_of

SHAPE = TaskShape(input_shape=(1,), targets="real")


def spec(**train: Any) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": "waves",
            "device": "cpu",
            "generate": {"distribution": "sinusoid"},
            "train": {"model": {"name": "mlp"}, "iterations": COMPILE_FROM_ITERATIONS, "shots": 5, "queries": 5} | train,
        }
    )


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "usable", lambda *_: False)


def test_a_network_with_compiled_loops_of_its_own_is_not_compiled() -> None:
    if not kernels.usable(torch.empty(0)):
        pytest.skip("no C compiler")
    assert device_of(spec(), SHAPE) is None
    assert computed_by(spec(), SHAPE) == "the network's own compiled loops"


@pytest.mark.usefixtures("without_kernels")
def test_a_long_training_repays_compilation_and_a_short_one_does_not() -> None:
    assert device_of(spec(), SHAPE) == "cpu"
    assert computed_by(spec(), SHAPE) == f"torch.compile (repaid by {COMPILE_FROM_ITERATIONS} iterations)"
    short = spec(iterations=COMPILE_FROM_ITERATIONS - 1)
    assert device_of(short, SHAPE) is None
    assert "too few iterations to repay torch.compile" in computed_by(short, SHAPE)


@pytest.mark.usefixtures("without_kernels")
@pytest.mark.parametrize(("choice", "said"), [("on", "torch.compile (as asked)"), ("off", "one by one (as asked)")])
def test_the_spec_has_the_last_word(choice: str, said: str) -> None:
    assert said in computed_by(spec(compile=choice), SHAPE)


@pytest.mark.usefixtures("without_kernels")
def test_a_convolutional_network_is_not_compiled_for_a_cpu() -> None:
    pictures = TaskShape(input_shape=(1, 28, 28), targets="classes")
    deep = {"model": {"name": "conv4"}, "ways": 5, "shots": 1, "queries": 1, "iterations": COMPILE_FROM_ITERATIONS}
    whole = PipelineSpec.model_validate({"name": "x", "device": "cpu", "generate": {"distribution": "omniglot"}, "train": deep})
    assert device_of(whole, pictures) is None
    assert "not known to repay itself" in computed_by(whole, pictures)
