"""The pipelines file that a command is given, and the pipelines that the command names."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows import console, environment
from flows.planning import suggestion, unless_tried_out
from metaopt_core.errors import UserError
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.schedule import CronSchedule, ScheduleSpec

if TYPE_CHECKING:
    from metaopt_core.spec.loader import Pipelines

DEFAULT = Path("pipelines.yaml")


def load(path: Path, overrides: dict[str, list[str]] | None = None) -> "Pipelines":
    """All pipelines of a file. overrides: pipeline → KEY=VALUE, …"""
    from metaopt_core.spec import loader, user_source

    environment.import_from(user_source.beside(path))
    return loader.load(path, overrides or {})


def one(path: Path, name: str, sets: Sequence[str] | None = None) -> PipelineSpec:
    """The named pipeline, with values changed for this run."""
    return named(load(path, {name: list(sets)} if sets else None), name, path).located(os.environ)


def to_run(path: Path, name: str, sets: Sequence[str] | None, register: bool) -> PipelineSpec:
    """A pipeline to run. With changed values it adds a version of the registered model only if asked to."""
    spec = one(path, name, sets)
    if register and spec.log.register_as is None:
        raise UserError(f"--register: {name} has no log.register_as, the name of the registered model: --set log.register_as=NAME")
    if register or not sets:
        return spec
    run = unless_tried_out(spec, one(path, name))
    if run != spec:
        console.say(f"a run with --set adds no version of {spec.log.register_as}; --register adds one")
    return run


def named(specs: Mapping[str, PipelineSpec], name: str, path: Path) -> PipelineSpec:
    if name not in specs:
        raise UserError(f"{path}: no pipeline {name}{suggestion(name, specs)}; expected one of {', '.join(specs)}")
    return specs[name]


def when(schedule: ScheduleSpec) -> str:
    """A schedule in words."""
    return f"cron {schedule.cron} {schedule.timezone}" if isinstance(schedule, CronSchedule) else f"every {schedule.every}"
