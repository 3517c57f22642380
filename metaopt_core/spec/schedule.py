"""`schedule`: when `metaopt serve` runs a pipeline."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from metaopt_core.spec.base import Spec

_DURATION = re.compile(r"([0-9]{1,6})\s*([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _cron(expression: str) -> str:
    try:
        if len(expression.split()) != 5:
            raise CronSimError("Wrong number of fields")
        CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        why = {"why": str(error).lower()}
        raise PydanticCustomError("cron", "expected a cron expression of five fields, as in 0 3 * * * ({why})", why) from None
    return expression


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PydanticCustomError("timezone", "expected an IANA time zone, as in Europe/Berlin") from None
    return name


def duration(text: str) -> str:
    match = _DURATION.fullmatch(text)
    if not match or int(match[1]) == 0:
        raise PydanticCustomError("duration", "expected a whole number and s, m, h or d, as in 6h")
    return text


def seconds_of(duration: str) -> int:
    match = _DURATION.fullmatch(duration)
    assert match is not None  # the validator has checked
    return int(match[1]) * _UNIT_SECONDS[match[2]]


class CronSchedule(Spec):
    """Runs at the times of a cron expression."""

    cron: Annotated[str, AfterValidator(_cron)] = Field(description="Cron expression of five fields.")
    timezone: Annotated[str, AfterValidator(_timezone)] = Field("UTC", description="IANA time zone, such as Europe/Berlin.")


class IntervalSchedule(Spec):
    """Runs repeatedly at a fixed interval."""

    every: Annotated[str, AfterValidator(duration)] = Field(
        description="Time between two starts: a number and s, m, h or d, as in 6h."
    )

    @property
    def seconds(self) -> int:
        return seconds_of(self.every)


def _kind_of_schedule(value: Any) -> str | None:
    """The tag of a schedule: whichever of `cron` and `every` is given."""
    given = value if isinstance(value, dict) else getattr(value, "model_fields_set", ())
    kinds = [kind for kind in ("cron", "every") if kind in given]
    return kinds[0] if len(kinds) == 1 else None


ScheduleSpec = Annotated[
    Annotated[CronSchedule, Tag("cron")] | Annotated[IntervalSchedule, Tag("every")],
    Discriminator(
        _kind_of_schedule,
        custom_error_type="schedule",
        custom_error_message="expected a mapping with either cron or every",
    ),
]
