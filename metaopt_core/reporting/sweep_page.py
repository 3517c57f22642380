"""The report of a sweep: what was searched, what was found, and how good it is on the meta-test tasks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaopt_core.reporting.html import images, page
from metaopt_core.reporting.numbers import NONE, Reading, counted, seconds, settings
from metaopt_core.reporting.table import Cell, Table, columns, row
from metaopt_core.spec.as_yaml import spec_yaml
from metaopt_core.spec.pipeline import PipelineSpec


def render(spec: PipelineSpec, result: Mapping[str, Any], best: PipelineSpec, reports: Mapping[str, Path], folder: Path) -> str:
    """The page. result: what `metaopt sweep` found; reports: of the pipelines that it ran in full; folder: the figures."""
    reading = Reading({"primary": result["metric"], "metrics": result["metrics"], "methods": {}, "shifted": {}})
    return page(
        "sweep.html",
        title=f"{spec.name}: sweep",
        description=spec.description,
        result=result,
        reading=reading,
        outcome=_outcome(result, reading),
        reports={name: path.as_uri() for name, path in reports.items()},
        yaml=spec_yaml(best),
        asked=_asked(spec),
        tables={"values": _values(result), "trials": _trials(result)},
        figures=dict(images(folder)),
    )


def _outcome(result: Mapping[str, Any], reading: Reading) -> tuple[Cell, ...]:
    """The outcome on the meta-test tasks, in words."""
    best, default, paired = result["best"], result["default"], result["difference"]
    parts = [
        Cell(f"The best of {counted(result['trials'], 'trial')}, trained in full, reaches a {reading.title} of "),
        Cell(reading.interval(best["test"]), tone="strong"),
        Cell(f" on the meta-test tasks after {counted(best['steps'], 'adaptation step')}; the pipeline's own setting reaches "),
        Cell(f"{reading.interval(default['test'])}. "),
    ]
    if paired is None:
        return (*parts, Cell("The two have different meta-test tasks, so no difference is known."))
    chance = paired["mean"] is None or paired["p"] is None or paired["p"] > 0.05
    if chance:
        parts += [Cell("Task by task the difference is "), Cell("no larger than chance can make it", tone="strong")]
    else:
        better = (paired["mean"] > 0) == reading.larger_is_better
        parts += [
            Cell("Task by task the best setting is "),
            Cell("better" if better else "worse", tone="good" if better else "bad"),
        ]
    unit = " percentage points" if reading.percent else ""
    return (*parts, Cell(f": {reading.difference(paired)}{unit}."))


def _asked(spec: PipelineSpec) -> dict[str, str]:
    """What was searched, and the budget."""
    search = spec.sweep
    assert search is not None  # it is a sweep's
    budget = [counted(search.trials, "trial")] if search.trials else []
    budget += [str(search.time)] if search.time else []
    steps = f" after {counted(search.objective.steps, 'adaptation step')}" if search.objective.steps else ""
    ranges = {key: json.dumps(values.model_dump(mode="json", exclude_defaults=True)) for key, values in search.parameters.items()}
    return {
        "Budget": " or ".join(budget),
        "Objective": f"{search.objective.metric} on the meta-validation tasks{steps}",
        "Pruning": search.pruning,
        "Only in trials": settings(dict(search.trial)) or NONE,
    } | {key: text.strip("{}").replace('"', "") for key, text in ranges.items()}


def _values(result: Mapping[str, Any]) -> Table:
    """The settings that were searched: the best and the pipeline's own."""
    own = result["default"]["values"]
    rows = [row(key, _said(value), _said(own.get(key))) for key, value in result["best"]["values"].items()]
    return Table("What was found", columns("", f"best: trial {result['best']['trial']}", "the pipeline's own"), tuple(rows))


def _trials(result: Mapping[str, Any]) -> Table:
    """Every trial, the best first."""
    known = [one for one in result["history"] if one["value"] is not None and not one["pruned"]]
    descending = bool(result["metrics"][result["metric"]]["larger_is_better"])
    ordered = sorted(known, key=lambda one: one["value"], reverse=descending)
    ordered += [one for one in result["history"] if one not in known]
    keys = list(result["best"]["values"])
    rows = [
        row(
            str(one["number"]),
            "pruned" if one["pruned"] else f"{one['value']:.4g}",
            seconds(one["seconds"]),
            *(_said(one["values"].get(key)) for key in keys),
            strong=one["number"] == result["best"]["trial"],
        )
        for one in ordered
    ]
    return Table("Trials, the best first", columns("trial", "objective", "time", *keys), tuple(rows))


def _said(value: Any) -> str:
    return NONE if value is None else settings({"": value}).strip()
