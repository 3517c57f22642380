"""Completions for the shell. If anything goes wrong there are none, and no message: the user is still typing."""

from pathlib import Path

import typer

from metaopt_core.errors import UserError

_WRONG = (UserError, OSError, ValueError)


def pipelines(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Names of pipelines, each with its description."""
    from flows import pipelines_file

    try:
        specs = pipelines_file.load(_file(context))
    except _WRONG:
        return []
    return [(name, spec.description) for name, spec in specs.items() if name.startswith(incomplete)]


def stages(incomplete: str) -> list[tuple[str, str]]:
    from metaopt_core.pipeline.stages import STAGES

    return [(name, stage.about) for name, stage in STAGES.items() if name.startswith(incomplete)]


def runs(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids of past runs and names of their pipelines."""
    from flows import environment
    from metaopt_core.pipeline.history import past

    try:
        there = past(environment.home_of(_file(context)))
    except _WRONG:
        return []
    known = {one.id: one.pipeline for one in there} | {one.pipeline: "its newest run" for one in there}
    return [(name, about) for name, about in known.items() if name.startswith(incomplete)]


def _file(context: typer.Context) -> Path:
    """The file that `-f` names, after the command or before it."""
    from flows import pipelines_file

    given = context.params.get("file") or (context.parent.params.get("file") if context.parent else None)
    return Path(given) if given else pipelines_file.DEFAULT
