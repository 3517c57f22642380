"""A metric is a function with what is needed to read its numbers."""

import pytest
from pydantic import TypeAdapter, ValidationError

from metaopt_core.spec.components import METRICS, known
from metaopt_core.spec.metric import Metric, MetricName, metric, metric_names
from metaopt_core.spec.train import TrainSpec


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
    names: TypeAdapter[str] = TypeAdapter(MetricName)
    assert set(metric_names()) == {"accuracy", "loss", "mae", "r2", "rmse"}
    assert names.validate_python("tests.toys.largest_error:largest_error")
    with pytest.raises(ValidationError, match="expected rmse or r2 or mae or loss or accuracy"):
        names.validate_python("calibration_error")  # of all tasks together


def test_a_loss_that_is_summed_over_ways_is_shown_as_it_is_trained() -> None:
    follows = {one.name for one in known(METRICS, Metric).values() if one.follows_reduction}
    assert follows == {"loss"}
    assert TrainSpec.model_fields["reduction"].default == "mean"
