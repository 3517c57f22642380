"""Which methods there are, what they are called, and which of them a pipeline may leave out."""

from itertools import pairwise
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from metaopt_core.spec.components import METHODS, known
from metaopt_core.spec.method import BaselineName, MethodInfo, named_method, optional_methods
from metaopt_core.spec.train import TrainSpec

NAMES: TypeAdapter[Any] = TypeAdapter(BaselineName)


def train(algorithm: str) -> TrainSpec:
    body = {"model": {"name": "mlp"}, "iterations": 1, "shots": 5, "queries": 5, "algorithm": algorithm}
    return TrainSpec.model_validate(body)


@pytest.mark.parametrize(
    ("algorithm", "key", "label"), [("maml", "maml", "MAML"), ("maml++", "mamlpp", "MAML++"), ("anil", "anil", "ANIL")]
)
def test_the_learned_parameters_are_called_what_the_algorithm_is_called(algorithm: str, key: str, label: str) -> None:
    learned, safe = named_method("maml"), named_method("safe")
    assert (learned.key(train(algorithm)), learned.label(train(algorithm))) == (key, label)
    assert (safe.key(train(algorithm)), safe.label(train(algorithm))) == (f"{key}_safe", f"{label}, safe")
    assert named_method("random").key(train(algorithm)) == "random"


def test_no_two_methods_share_a_name_a_colour_or_a_place() -> None:
    methods = known(METHODS, MethodInfo).values()
    for what in ("name", "title", "color", "rank"):
        values = [getattr(method, what) for method in methods if getattr(method, what)]
        assert len(set(values)) == len(values), what
    assert all(one.rank < other.rank for one, other in pairwise(sorted(methods, key=lambda method: method.rank)))


@pytest.mark.parametrize(("algorithm", "name"), [("maml", "maml"), ("ridge", "solved"), ("adkf", "solved")])
def test_there_is_one_that_the_pipeline_is_there_to_learn_and_a_model_for_each_adaptation(algorithm: str, name: str) -> None:
    methods = known(METHODS, MethodInfo).values()
    there = [method for method in methods if method().refusal(train(algorithm), "real") is None]
    assert [method.name for method in there if method.trained and not method.baseline] == [name]
    assert {method.of_model for method in methods} == {None, "plain", "safe"}


def test_a_baseline_is_one_that_may_be_left_out_or_an_import_path() -> None:
    assert {"pretrained", "protonet", "support_mean", "mixed_model"} <= set(optional_methods())
    assert not {"maml", "random", "unadapted"} & set(optional_methods())
    for name in (*optional_methods(), "tests.toys.least_squares:LeastSquares"):
        assert NAMES.validate_python(name) == name
    for name in ("unadapted", "maml", "xyz"):
        with pytest.raises(ValidationError, match="expected a baseline such as pretrained or mixed_model, or an import path"):
            NAMES.validate_python(name)
    assert NAMES.json_schema()["anyOf"][0] == {"enum": list(optional_methods())}


def test_a_method_says_on_which_tasks_it_makes_no_sense() -> None:
    protonet = named_method("protonet")
    assert protonet.refusal(train("maml"), "classes") is None
    assert protonet.refusal(train("maml"), "real") == "needs classes, and TASKS have none"
