"""Variants of the test tasks say what they change, and no more."""

import pytest
from pydantic import ValidationError

from metaopt_core.spec.evaluate import EvaluateSpec, ShiftSpec


def test_a_shift_is_what_it_says_and_what_it_changes_of_the_distribution() -> None:
    shift = ShiftSpec.model_validate({"shots": 3, "x": [5.0, 10.0], "noise": None})
    assert shift.said == {"shots": 3, "x": [5.0, 10.0]}
    assert shift.changes == {"x": [5.0, 10.0]}
    assert shift.model_dump(mode="json") == {"shots": 3, "x": [5.0, 10.0]}  # as it was written


@pytest.mark.parametrize("name", ["far away", "Far", "-far", "in-distribution", "ä", ""])
def test_a_variant_has_a_name_that_files_and_metrics_can_have(name: str) -> None:
    with pytest.raises(ValidationError, match="other than in-distribution"):
        EvaluateSpec.model_validate({"shifted": {name: {"shots": 3}}})


def test_a_metric_of_the_users_is_looked_for_when_the_spec_is_read() -> None:
    path = "tests.toys.largest_error:largest_error"
    assert EvaluateSpec.model_validate({"metrics": [path]}).metrics == (path,)
    with pytest.raises(ValidationError, match="has no such smallest_error"):
        EvaluateSpec.model_validate({"metrics": ["tests.toys.largest_error:smallest_error"]})
