"""A metric is a function with what is needed to read its numbers."""

import pytest
from pydantic import ValidationError

from metaopt_core.spec.components import METRICS, known
from metaopt_core.spec.metric import Metric, metric, metric_names
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.train import TrainSpec
from tests.made_outputs import sinusoid_spec


def test_a_function_becomes_a_metric_of_its_own_name_and_module() -> None:
    @metric(title="median error", targets="real", unit="m")
    def median_error(outputs: object, targets: object, weight: object = None) -> str:
        return "computed"

    assert (median_error.name, median_error.title, median_error.unit, median_error.form) == (
        "median_error",
        "median error",
        "m",
        "number",
    )
    assert median_error.of(None, None) == "computed"
    assert median_error.__module__ == __name__  # whose code is part of what is measured
    renamed = metric(name="loss", title="t", targets="real")(median_error.of)
    assert (renamed.name, renamed.component_name()) == ("loss", "median_error")


@pytest.mark.parametrize("targets", ["real", "classes"])
def test_each_kind_of_tasks_has_one_that_methods_are_compared_by_and_the_loss(targets: str) -> None:
    of_kind = [one for one in known(METRICS, Metric).values() if one.targets == targets]
    first, *_ = sorted(of_kind, key=lambda one: one.rank)
    assert not first.pooled
    assert len({one.rank for one in of_kind}) == len({one.name for one in of_kind}) == len(of_kind)
    assert "loss" in {one.name for one in of_kind}


def test_a_search_is_by_a_metric_that_every_task_has_a_number_of() -> None:
    def search(metric: str, metrics: list[str]) -> PipelineSpec:
        found = {"trials": 2, "parameters": {"train.inner.steps": {"low": 1, "high": 2}}, "objective": {"metric": metric}}
        return sinusoid_spec("waves", sweep=found, evaluate={"metrics": metrics})

    assert set(metric_names()) == {"accuracy", "loss", "mae", "r2", "rmse"}
    own = "tests.toys.largest_error:largest_error"
    assert search("largest_error", [own]).sweep
    for name in ("calibration_error", "largest_error", own):  # of all tasks together; not among them; not a name
        with pytest.raises(ValidationError, match=f"no metric {name} for such tasks: expected loss"):
            search(name, [])


def test_no_two_metrics_or_methods_have_one_name() -> None:
    twice = ["tests.toys.largest_error:largest_error"] * 2
    with pytest.raises(ValidationError, match="two metrics with the name largest_error: expected one"):
        sinusoid_spec("waves", evaluate={"metrics": twice})
    twice = ["tests.toys.least_squares:LeastSquares"] * 2
    body = sinusoid_spec("waves").model_dump()
    with pytest.raises(ValidationError, match="two methods with the name least_squares: expected one"):
        PipelineSpec.model_validate(body | {"train": body["train"] | {"baselines": twice}})


def test_a_loss_that_is_summed_over_ways_is_shown_as_it_is_trained() -> None:
    follows = {one.name for one in known(METRICS, Metric).values() if one.follows_reduction}
    assert follows == {"loss"}
    assert TrainSpec.model_fields["reduction"].default == "mean"
