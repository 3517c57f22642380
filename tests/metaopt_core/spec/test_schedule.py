"""When a pipeline runs: times of a cron expression in a zone, or every so often."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from metaopt_core.spec.schedule import CronSchedule, IntervalSchedule, ScheduleSpec, seconds_of

SCHEDULE: TypeAdapter[Any] = TypeAdapter(ScheduleSpec)


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("8 m", 480), ("6h", 21_600), ("2d", 172_800)])
def test_a_time_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert IntervalSchedule(every=text).seconds == seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["0h", "6", "h", "1.5h", "6w", "-1h", "6hours", "", "9999999s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="expected a whole number and s, m, h or d, as in 6h"):
        IntervalSchedule(every=text)


def test_the_key_says_which_kind_it_is() -> None:
    assert SCHEDULE.validate_python({"cron": "0 3 * * *", "timezone": "Europe/Berlin"}) == CronSchedule(
        cron="0 3 * * *", timezone="Europe/Berlin"
    )
    assert SCHEDULE.validate_python({"every": "6h"}) == IntervalSchedule(every="6h")
    for neither in ({}, {"cron": "0 3 * * *", "every": "6h"}, {"timezone": "UTC"}, "daily"):
        with pytest.raises(ValidationError, match="expected a mapping with either cron or every"):
            SCHEDULE.validate_python(neither)


@pytest.mark.parametrize("expression", ["0 3 * *", "0 3 * * * *", "61 * * * *", "* * 31 2 *", "daily"])
def test_times_that_never_come_or_are_none_are_refused(expression: str) -> None:
    with pytest.raises(ValidationError, match="expected a cron expression of five fields"):
        CronSchedule(cron=expression)


@pytest.mark.parametrize("zone", ["Berlin", "../etc/passwd", "", "Europe/berlin\0"])
def test_a_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(ValidationError, match="expected an IANA time zone"):
        CronSchedule(cron="0 3 * * *", timezone=zone)
