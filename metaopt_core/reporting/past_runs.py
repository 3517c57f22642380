"""Past executions side by side: a list of them, and a comparison of two or more."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

import numpy as np

from metaopt_core.evaluation.verdict import Statistics, Summary, at_horizon, verdict
from metaopt_core.pipeline.history import Past, differing
from metaopt_core.reporting.numbers import NONE, SURVIVES, Reading, counted, seconds
from metaopt_core.reporting.table import Cell, Column, Row, Table, Tone, columns, joined, row
from metaopt_core.spec.evaluate import IN_DISTRIBUTION

_TONES: dict[str, Tone] = {"better": "good", "worse": "bad", "unclear": ""}
_SETTINGS_SHOWN = 4


def readable(one: Past) -> bool:
    """Whether its results exist in this version's format."""
    try:
        verdict(one.summary)
        return {"metrics", "groups"} <= one.summary.keys()
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return False


def listed(executions: Sequence[Past]) -> Table:
    """One row for each execution, by pipeline, with the settings in which the executions of a pipeline differ."""
    rows = []
    by_name = sorted(executions, key=lambda one: one.pipeline)  # a stable sort keeps the newest first
    for name, group in groupby(by_name, key=lambda one: one.pipeline):
        of_pipeline = list(group)
        keys = differing(of_pipeline)
        title = Reading(of_pipeline[0].summary).title
        for one in of_pipeline:
            reading, found = Reading(one.summary), verdict(one.summary)
            against = Cell(NONE)
            if found.paired:
                mark = SURVIVES if found.paired.get("survives") else ""
                against = Cell(reading.difference(found.paired), tone=_TONES[found.outcome], mark=mark)
            rows.append(
                row(
                    one.id,
                    _when(one),
                    reading.interval(found.entry[reading.name]),
                    against,
                    _settings(one, keys),
                    group=Cell(f"{name}: {title}"),
                )
            )
    made = (*columns("run", "finished", left=2), Column("mean"), Column("minus best\nbaseline"), Column("what differs", left=True))
    note = f"{SURVIVES}: differs from 0 also when corrected for the number of comparisons (Holm)"
    return Table("", (*made[:-1], Column("what differs", left=True, wraps=True)), tuple(rows), joined(note if rows else ""))


def settings(executions: Sequence[Past]) -> Table:
    """One row for each setting that is not the same in all of them."""
    rows = [row(key, *(_value(one.settings.get(key)) for one in executions)) for key in differing(executions)]
    headings = [Column(f"{one.id}\n{one.pipeline}", left=True, wraps=True) for one in executions]
    return Table("What differs", (Column("", left=True), *headings), tuple(rows))


def results(executions: Sequence[Past]) -> Table:
    """The logged models' numbers at their horizons, one a row, and the differences from the first execution."""
    summaries = [one.summary for one in executions]
    readings = [Reading(summary) for summary in summaries]
    entries = [at_horizon(summary, summary["model"]) for summary in summaries]
    rows = [
        row("logged model", *(summary["methods"][summary["model"]]["label"] for summary in summaries)),
        row("adaptation steps", *(str(summary["horizon"]) for summary in summaries)),
    ]
    for name in dict.fromkeys(name for summary in summaries for name in summary["metrics"]):
        rows.append(_metric(summaries, name, strong=all(reading.name == name for reading in readings)))
        if all(reading.name == name for reading in readings):
            rows += _paired(executions, name)
    rows += [
        row("worst 10%", *(reading.value(e[reading.name]["worst"]) for reading, e in zip(readings, entries, strict=True))),
        row("improved by adaptation", *(f"{entry['improved']:.1%}" for entry in entries)),
        row("diverged", *(f"{entry['diverged']:,}" for entry in entries)),
        row("minus best baseline", *(_against_baseline(summary) for summary in summaries)),
        row("time of all stages", *(seconds(one.seconds) for one in executions)),
    ]
    same = _same_tasks(executions)
    return Table(
        f"Results on {counted(summaries[0]['tasks'], 'meta-test task')}" if same else "Results",
        (Column("", left=True), *(Column(f"{one.id}\n{one.pipeline}") for one in executions)),
        tuple(rows),
        joined(
            "mean ± 95% interval",
            "differences are task by task" if same else "no differences: the meta-test tasks are not the same",
            "in percentage points" if same and readings[0].percent else "",
            f"{SURVIVES}: differs from 0 also when corrected for the number of comparisons (Holm)",
        ),
    )


def as_json(executions: Sequence[Past]) -> list[dict[str, Any]]:
    """The executions for programs."""
    return [
        {
            "id": one.id,
            "pipeline": one.pipeline,
            "finished": datetime.fromtimestamp(one.finished).astimezone().isoformat(timespec="seconds"),
            "seconds": one.seconds,
            "settings": dict(one.settings),
            "folders": {stage: str(folder) for stage, folder in one.folders.items()},
            "mlflow": dict(one.extra),
            "primary": one.summary["primary"],
            "results": at_horizon(one.summary, one.summary["model"]),
            "outcome": verdict(one.summary).outcome,
        }
        for one in executions
    ]


def differences(executions: Sequence[Past]) -> list[Statistics | None]:
    """The primary metric of each execution minus the first's, task by task; none if tasks or metrics differ."""
    names = {one.summary["primary"] for one in executions}
    if len(names) > 1 or not _same_tasks(executions):
        return [None for _ in executions[1:]]
    return _differences(executions, names.pop())


def _metric(summaries: Sequence[Summary], name: str, strong: bool) -> Row:
    """One metric of all executions that have it."""
    cells, heading = [], name
    for summary in summaries:
        if name not in summary["metrics"]:
            cells.append(NONE)
            continue
        reading, model = Reading(summary, name), summary["model"]
        heading = reading.heading
        if reading.pooled:
            cells.append(reading.value(summary["methods"][model]["pooled"].get(name)))
        else:
            cells.append(reading.interval(at_horizon(summary, model)[name]))
    return row(heading, *cells, strong=strong)


def _paired(executions: Sequence[Past], name: str) -> list[Row]:
    """The row of differences from the first execution, if there are any."""
    if not _same_tasks(executions):
        return []
    reading = Reading(executions[0].summary, name)
    cells = [Cell("")]
    for found in _differences(executions, name):
        better = bool(found["mean"]) and (found["mean"] > 0) == reading.larger_is_better
        tone: Tone = ("good" if better else "bad") if found.get("survives") else ""
        cells.append(Cell(reading.difference(found), tone=tone, mark=SURVIVES if found.get("survives") else ""))
    return [row(f"  minus {executions[0].id}", *cells)]


def _differences(executions: Sequence[Past], name: str) -> list[Any]:
    from metaopt_core.evaluation.shared_groups import SharedGroups
    from metaopt_core.evaluation.statistics import paired, survivors

    tables = [_tasks(one, name) for one in executions]
    groups = tables[0][1]
    shared = SharedGroups.of(groups) if groups is not None else None
    found: list[Any] = [paired(values - tables[0][0], shared) for values, _ in tables[1:]]
    for each, survives in zip(found, survivors([each["p"] for each in found]), strict=True):
        each["survives"] = survives
    return found


def _tasks(one: Past, name: str) -> tuple[Any, Any]:
    """The metric of the logged model on every test task at its horizon [tasks], and the tasks' groups if they have any."""
    import pyarrow.parquet as parquet

    from metaopt_core.evaluation.statistics import one_a_task

    path, summary = one.folders["evaluate"] / "tasks.parquet", one.summary
    column = f"{name}_{summary['horizon']}"
    there = parquet.read_schema(path).names
    wanted = ["variant", "method", "task", column, *(name for name in ("shots", "repeat", "groups") if name in there)]
    chosen = [("variant", "=", IN_DISTRIBUTION), ("method", "=", summary["model"])]
    table = one_a_task(parquet.read_table(path, columns=wanted, filters=chosen).to_pandas()).sort_values("task")
    groups = np.array(table["groups"].tolist(), np.int64) if "groups" in there else None
    return table[column].to_numpy(np.float64), groups


def _same_tasks(executions: Sequence[Past]) -> bool:
    """Whether they were evaluated on the same test tasks: equal data and the same examples."""
    protocols = {tuple(one.summary[key] for key in ("ways", "shots", "queries", "tasks")) for one in executions}
    return len({one.content.get("generate") for one in executions}) == len(protocols) == 1


def _against_baseline(summary: Summary) -> Cell:
    reading, found = Reading(summary), verdict(summary)
    if not found.paired:
        return Cell(NONE)
    return Cell(reading.difference(found.paired), tone=_TONES[found.outcome], mark=SURVIVES if found.paired.get("survives") else "")


def _when(one: Past) -> str:
    return f"{datetime.fromtimestamp(one.finished).astimezone():%Y-%m-%d %H:%M}"


def _settings(one: Past, keys: Sequence[str]) -> str:
    said = [f"{key}={_value(one.settings.get(key))}" for key in keys]
    more = f", and {len(said) - _SETTINGS_SHOWN} more" if len(said) > _SETTINGS_SHOWN else ""
    return ", ".join(said[:_SETTINGS_SHOWN]) + more


def _value(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value)
    return NONE if value is None else str(value)
