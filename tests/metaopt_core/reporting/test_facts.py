"""A report says in words which settings a pipeline has."""

from typing import Any

import pytest

from metaopt_core.reporting.facts import asked
from metaopt_core.spec.pipeline import PipelineSpec
from tests.small import SMALL_CONV


def spec(**train: Any) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": "waves",
            "generate": {"distribution": "sinusoid"},
            "train": {"model": {"name": "mlp"}, "iterations": 2000, "shots": 5, "queries": 10} | train,
        }
    )


def test_a_regression() -> None:
    facts = asked(spec(), "cpu", 1000)
    assert facts["Training"] == "5-shot with 10 queries a task; 2,000 iterations of 25 tasks"
    assert facts["Network"] == "mlp: hidden 40, 40"
    assert facts["Algorithm"] == "MAML; exact meta-gradient of the loss after the last step"
    assert facts["Inner loop"] == "1 step of gradient descent on all parameters, step size 0.01"
    assert facts["Outer loop"] == "Adam, step size 0.001, constant"
    assert "1,000 meta-test tasks that training has not seen" in facts["Evaluation"]
    assert facts["Seed and device"] == "0, cpu"


def test_a_classification_says_its_ways() -> None:
    facts = asked(SMALL_CONV, "cpu", 30)
    assert facts["Training"].startswith("3-way 1-shot with 2 queries a class; ")
    assert facts["Evaluation"].endswith("30 meta-test tasks that training has not seen; up to 2 steps, compared after 2")


@pytest.mark.parametrize(
    ("train", "fact", "said"),
    [
        ({"algorithm": "anil"}, "Inner loop", "on only the last layer, step size 0.01"),
        ({"algorithm": "meta-sgd"}, "Inner loop", "step size 0.01 at first and then learned, per parameter"),
        ({"algorithm": "imaml"}, "Algorithm", "implicit meta-gradient, λ = 20, 5 steps of conjugate gradients"),
        ({"inner": {"clip_norm": 3.0, "minibatch": 2}}, "Inner loop", "gradients clipped to norm 3, minibatches of 2"),
        ({"inner": {"adapts": ["layer0.*"]}}, "Inner loop", "on layer0.*, step size"),
        ({"shots": {"low": 4, "high": 20}}, "Training", "4 to 20-shot with 10 queries a task"),
    ],
)
def test_what_differs_from_plain_maml_is_said(train: dict[str, Any], fact: str, said: str) -> None:
    assert said in asked(spec(**train), "cpu", 21)[fact]


def test_tasks_that_are_read_are_as_many_as_there_are_and_unset_keys_are_not_told() -> None:
    body = spec().model_dump(exclude_unset=True)
    table = {"distribution": "table", "path": "a.csv", "task": "t", "target": "y"}
    facts = asked(PipelineSpec.model_validate(body | {"generate": table}), "cpu", 21)
    assert "21 meta-test tasks that training has not seen" in facts["Evaluation"]
    assert "None" not in facts["Tasks"]
