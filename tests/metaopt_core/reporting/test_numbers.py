"""How numbers are written."""

import math

import pytest

from metaopt_core.reporting.numbers import Reading, change, counted, seconds, settings
from tests.summaries import ACCURACY, LOSS, method, statistics, summary


def reading(*means: float | None, metric: dict[str, object] = LOSS) -> Reading:
    methods = {f"m{place}": method("m", [{"x": statistics(mean)}]) for place, mean in enumerate(means)}
    return Reading(summary(methods, metrics={"x": metric}))


def test_a_mean_has_its_interval_beside_it() -> None:
    assert reading(0.5).interval({"mean": 0.5, "ci95": 0.02}) == "0.500 ± 0.020"
    assert reading(0.5).interval({"mean": 0.5, "ci95": None}) == "0.500"
    assert reading(0.953, metric=ACCURACY).interval({"mean": 0.953, "ci95": 0.0061}) == "95.3% ± 0.6%"


def test_a_mean_that_is_not_finite_says_so() -> None:
    assert reading(None).interval({"mean": None, "ci95": None}) == "not finite"
    assert reading(1.0).value(math.inf) == "not finite"


def test_differences_of_shares_are_in_points() -> None:
    assert reading(0.5).difference({"mean": -0.25, "ci95": 0.1}) == "−0.250 ± 0.100"
    shares = reading(0.9, metric=ACCURACY)
    assert shares.difference({"mean": 0.0123, "ci95": 0.004}) == "+1.2 ± 0.4"
    assert "percentage points" in shares.of_differences(3)
    assert "corrected for 3 comparisons (Holm)" in reading(0.5).of_differences(3)
    assert "percentage points" not in reading(0.5).of_differences(3)


@pytest.mark.parametrize(
    ("means", "number", "written"),
    [
        ((0.3, 4.3), 0.3, "0.300"),
        ((0.00042, 4.3), 0.00042, "0.00042"),  # two digits of the smallest
        ((4.2e-9, 0.3), 4.2e-9, "0.00000"),  # but not at any price
        ((0.00042, 0.0043), 0.00042, "0.00042"),
        ((4.2e-9, 4.3e-8), 4.2e-9, "0.0000000042"),
        ((0.3, 1234.5), 1234.5, "1,234"),
        ((0.3, 2e9), 2e9, "2.0e+09"),
    ],
)
def test_all_numbers_of_a_metric_have_the_same_decimals(means: tuple[float, ...], number: float, written: str) -> None:
    assert reading(*means).value(number) == written


@pytest.mark.parametrize(("fraction", "written"), [(None, ""), (0.55, "+55%"), (-0.08, "−8%"), (11.3, "×12"), (3e8, "×3e+08")])
def test_a_large_change_is_a_factor(fraction: float | None, written: str) -> None:
    assert change(fraction) == written


def test_one_is_singular() -> None:
    assert [counted(number, "query") for number in (1, 2, 1000)] == ["1 query", "2 queries", "1,000 queries"]
    assert [counted(number, "step") for number in (0, 1)] == ["0 steps", "1 step"]


def test_times_and_settings_read_as_words() -> None:
    assert [seconds(number) for number in (3.14, 65, 150, 7300)] == ["3.1 s", "65 s", "2 min 30 s", "2 h 01 min"]
    assert settings({"phase": [0.0, 3.5], "hidden": [40, 40], "a": {"b_c": 1e-05}}) == "phase 0 to 3.5, hidden 40, 40, a b c 1e-05"
