"""What a search may look through, and for how long."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from metaopt_core.spec.sweep import ChoicesSpec, RangeSpec, SweepSpec


def sweep(**values: Any) -> SweepSpec:
    return SweepSpec.model_validate(
        {"parameters": {"train.inner.lr": {"low": 0.001, "high": 0.1, "log": True}}, "trials": 5} | values
    )


def test_the_keys_of_a_parameter_say_whether_it_is_a_range_or_choices() -> None:
    found = sweep(parameters={"a.b": {"low": 1, "high": 4}, "a.c": {"choices": [[8], [8, 8]]}}).parameters
    assert found == {"a.b": RangeSpec(low=1, high=4), "a.c": ChoicesSpec(choices=([8], [8, 8]))}
    for neither in ({"low": 1, "choices": [1, 2]}, {"log": True}, 5):
        with pytest.raises(ValidationError, match="expected a mapping with either low and high, or choices"):
            sweep(parameters={"a.b": neither})


@pytest.mark.parametrize("bounds", [{"low": 2, "high": 1}, {"low": 1, "high": 1}, {"low": 0, "high": 1, "log": True}])
def test_a_range_has_its_smaller_number_first_and_a_logarithm_where_it_goes_by_that(bounds: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="expected low to be less than high, and greater than 0 if log is true"):
        RangeSpec.model_validate(bounds)


def test_whole_bounds_are_written_without_a_point_as_keys_of_whole_numbers_want_them() -> None:
    assert RangeSpec(low=1, high=4.5).model_dump(mode="json") == {"low": 1, "high": 4.5, "log": False}


def test_a_search_ends_by_its_trials_or_its_time() -> None:
    assert sweep().seconds == math.inf
    assert sweep(trials=None, time="8m").seconds == 480
    with pytest.raises(ValidationError, match="expected trials or time, or both"):
        sweep(trials=None)
