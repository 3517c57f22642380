"""What a pipeline means where it says nothing: each default is taken from one place."""

from typing import Any

import pytest

from metaopt_core.spec.pipeline import PipelineSpec
from tests.small import SMALL_CONV

BODY: dict[str, Any] = {
    "name": "waves",
    "seed": 3,
    "generate": {"distribution": "sinusoid"},
    "train": {"model": {"name": "mlp"}, "iterations": 50, "shots": 5, "queries": 7, "inner": {"lr": 0.02, "steps": 2}},
    "evaluate": {"steps": 4},
}


def waves(**blocks: dict[str, Any]) -> PipelineSpec:
    return PipelineSpec.model_validate(BODY | {name: BODY[name] | block for name, block in blocks.items()})


def test_validation_and_evaluation_are_as_training_is() -> None:
    spec = waves()
    assert (spec.validation_shots, spec.validation_queries) == (spec.evaluate_shots, spec.evaluate_queries) == (5, 7)
    assert (spec.evaluate_inner_lr, spec.pretrain_iterations, spec.data_seed) == (0.02, 50, 3)
    assert spec.baseline_lrs == (0.0006, 0.002, 0.006, 0.02, 0.06, 0.2)
    own = waves(evaluate={"shots": 3, "inner_lr": 0.1}, generate={"seed": 8}, train={"pretrain_iterations": 9})
    assert (own.evaluate_shots, own.evaluate_queries, own.evaluate_inner_lr) == (3, 7, 0.1)
    assert (own.pretrain_iterations, own.data_seed) == (9, 8)
    assert own.baseline_lrs[3] == 0.1


@pytest.mark.parametrize(("validated", "evaluated", "horizon"), [(3, 10, 3), (10, 4, 4)])
def test_methods_are_compared_where_the_model_is_validated_or_where_evaluation_ends(
    validated: int, evaluated: int, horizon: int
) -> None:
    assert waves(train={"validation": {"steps": validated}}, evaluate={"steps": evaluated}).horizon == horizon


def test_methods_stand_in_the_order_of_tables_without_those_that_make_no_sense_or_were_left_out() -> None:
    assert [method.name for method in waves().methods] == ["maml", "safe", "pretrained", "random", "unadapted"]
    assert [method.name for method in SMALL_CONV.methods] == ["maml", "safe", "protonet", "pretrained", "random", "unadapted"]
    left = waves(train={"baselines": ["tests.toys.least_squares:LeastSquares"]})
    assert [method.name for method in left.methods] == ["maml", "safe", "least_squares", "random", "unadapted"]
    assert left.learned.name == "maml"
    assert left.import_paths == ("tests.toys.least_squares:LeastSquares",)


def test_the_logged_model_adapts_by_the_method_of_its_adaptation() -> None:
    assert waves().model_method == "maml"
    assert waves(evaluate={"adaptation": "safe"}, train={"algorithm": "fomaml"}).model_method == "fomaml_safe"


def test_metrics_are_those_of_the_tasks_the_one_that_compares_first() -> None:
    assert [metric.name for metric in SMALL_CONV.metrics] == ["accuracy", "loss", "calibration_error"]
    more = waves(evaluate={"metrics": ["tests.toys.largest_error:largest_error"]})
    assert [metric.name for metric in more.metrics] == ["loss", "largest_error"]


def test_a_variant_is_the_pipeline_with_what_it_changes_and_no_variants() -> None:
    spec = waves(evaluate={"shifted": {"far": {"x": [5.0, 10.0], "shots": 2}, "left-out": None}})
    assert list(spec.shifted) == ["far"]
    far = spec.shifted["far"]
    assert (far.generate.model_dump()["x"], far.evaluate_shots, far.evaluate_queries) == ((5.0, 10.0), 2, 7)
    assert (far.shifts, far.train, far.seed) == ({}, spec.train, spec.seed)
