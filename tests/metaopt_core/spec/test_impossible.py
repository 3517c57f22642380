"""Combinations that no run could carry out are refused however a pipeline arrives, each at the key that has to change.

The messages of all of them are in mistakes/combinations.yaml.
"""

from typing import Any

import pytest
from pydantic import ValidationError

from metaopt_core.spec.pipeline import PipelineSpec
from tests.small import SMALL_CONV

SINUSOID: dict[str, Any] = {
    "name": "waves",
    "generate": {"distribution": "sinusoid"},
    "train": {"model": {"name": "mlp"}, "iterations": 50, "shots": 5, "queries": 7},
}
PLANES = SINUSOID | {"generate": {"distribution": "tests.toys.planes:Planes"}}


def problems(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Place and message of each."""
    with pytest.raises(ValidationError) as caught:
        PipelineSpec.model_validate(body)
    (error,) = caught.value.errors()
    assert error["type"] == "impossible"
    assert error["msg"] == "; ".join(f"{'.'.join(path)}: {message}" for path, message in error["ctx"]["problems"])
    return [(".".join(path), message) for path, message in error["ctx"]["problems"]]


def test_all_of_them_are_said_at_once() -> None:
    train = SINUSOID["train"] | {"ways": 5, "reduction": "sum_over_ways", "shots": 30}
    assert [place for place, _ in problems(SINUSOID | {"train": train})] == ["train.ways", "train.reduction", "train.shots"]


def test_what_tasks_have_is_asked_of_the_distribution_and_not_known_by_its_name() -> None:
    assert problems(PLANES | {"train": SINUSOID["train"] | {"ways": 5}}) == [
        ("train.ways", "5 ways, but planes are regression tasks and have no classes: remove it")
    ]
    assert problems(PLANES | {"train": SINUSOID["train"] | {"baselines": ["protonet"]}}) == [
        ("train.baselines", "protonet needs classes, and planes have none: remove it")
    ]


@pytest.mark.parametrize(
    ("shift", "place", "message"),
    [
        ({}, "", "nothing is shifted, expected a key such as steepness"),
        ({"steepness": "steep"}, ".steepness", "expected a valid number"),
        ({"steepnes": 2.0}, ".steepnes", "unknown key, did you mean steepness?"),
        ({"ways": 3}, ".ways", "tests.toys.planes:Planes tasks have no such setting"),
    ],
)
def test_a_variant_of_a_distribution_of_the_users_is_checked_like_any_other(
    shift: dict[str, Any], place: str, message: str
) -> None:
    ((found, said),) = problems(PLANES | {"evaluate": {"shifted": {"far": shift}}})
    assert found == f"evaluate.shifted.far{place}"
    assert message in said


def test_what_is_wrong_without_a_variant_is_said_once_and_not_for_each_variant() -> None:
    body = SMALL_CONV.model_dump()
    body["train"]["shots"] = 30
    body["evaluate"]["shifted"] = {"more": {"ways": 4}, "fewer": {"ways": 2}}
    assert {place for place, _ in problems(body)} == {"train"}


def test_a_variant_that_only_it_makes_impossible_is_named() -> None:
    body = SMALL_CONV.model_dump()
    body["evaluate"]["shifted"] = {"many": {"ways": 6}}
    ((place, message),) = problems(body)
    assert (place, message[:7]) == ("evaluate.shifted.many.ways", "6 ways,")
