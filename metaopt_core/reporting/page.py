"""The report of a pipeline: one HTML page that needs no other file.

It shows the settings, what was learned, how well it adapts, where it fails, and what it cost. The templates are in `templates/`.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from metaopt_core.evaluation.statistics import one_a_task
from metaopt_core.evaluation.verdict import Summary, best_baseline, verdict, worst_tasks
from metaopt_core.methods.contract import compared
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.reporting import tables, tables_by_shots, tables_by_task
from metaopt_core.reporting.facts import asked
from metaopt_core.reporting.html import images, page
from metaopt_core.reporting.numbers import NONE, Reading, counted, seconds
from metaopt_core.reporting.table import Table, columns, joined, row
from metaopt_core.reporting.words import in_short
from metaopt_core.spec.as_yaml import spec_yaml
from metaopt_core.spec.evaluate import IN_DISTRIBUTION
from metaopt_core.spec.metric import LOSS
from metaopt_core.spec.pipeline import PipelineSpec

_WORST_NAMED = 10


def render(spec: PipelineSpec, upstream: Mapping[str, StageOutput]) -> str:
    """The page of one execution, from the outputs of generate, train and evaluate."""
    summary: dict[str, Any] = json.loads((upstream["evaluate"] / "summary.json").read_text())
    tasks = one_a_task(pd.read_parquet(upstream["evaluate"] / "tasks.parquet"))
    history = pd.read_parquet(upstream["train"] / "history.parquet")
    trained = upstream["train"].extra
    return page(
        "pipeline.html",
        title=spec.name,
        description=spec.description,
        spec=spec,
        yaml=spec_yaml(spec),
        summary=summary,
        model=summary["methods"][summary["model"]],
        verdict=in_short(summary),
        tiles=list(tiles(summary)),
        facts=asked(spec, trained.get("device", spec.device), summary["tasks"]),
        gap=_gap(history, summary["learned"], trained.get("best_iteration")),
        tables=_tables(summary) | {"worst": _worst(summary, tasks), "by_task": tables_by_task.by_task(summary, tasks)},
        cost=_cost(spec, upstream),
        figures=dict(images(*(Path(output.folder) for output in upstream.values()))),
    )


def tiles(summary: Summary) -> Iterator[tuple[str, str]]:
    """The most important numbers, each with its meaning."""
    reading, found = Reading(summary), verdict(summary)
    values = found.entry[reading.name]
    yield reading.interval(values), f"{reading.title} of {summary['methods'][found.model]['label']}, mean ± 95% interval"
    if found.baseline and found.of_baseline:
        yield reading.interval(found.of_baseline[reading.name]), f"best baseline: {summary['methods'][found.baseline]['label']}"
    yield reading.value(values["worst"]), "mean over the 10% worst tasks"
    yield f"{found.entry['improved']:.1%}", "of tasks that adaptation improves"
    yield f"{found.entry['diverged']:,}", "diverged task" if found.entry["diverged"] == 1 else "diverged tasks"


def _tables(summary: Summary) -> dict[str, Table | None]:
    return {
        "compared": tables.compared(summary),
        "pairs": tables.pairs(summary),
        "other_metrics": tables.other_metrics(summary),
        "by_step": tables.by_step(summary),
        "by_shots": tables_by_shots.error(summary),
        "coverage": tables_by_task.coverage(summary),
        "by_shots_in_unit": tables_by_shots.in_unit(summary),
        "shifted": tables.shifted(summary) if summary["shifted"] else None,
        "shifted_in_short": tables.shifted_in_short(summary) if summary["shifted"] else None,
    }


def _gap(history: pd.DataFrame, learned: str, best_iteration: int | None) -> dict[str, float] | None:
    """The loss on meta-train and on meta-validation tasks, with the parameters that were kept."""
    kept = history[(history["phase"] == learned) & (history["iteration"] == best_iteration)]
    values = dict(zip(kept["name"], kept["value"], strict=True))
    names = ("meta_train_loss", "validation_loss")
    return {name: float(values[name]) for name in names} if set(names) <= values.keys() else None


def _worst(summary: Summary, tasks: pd.DataFrame) -> Table:
    """The tasks with the largest losses: before and after adaptation, and of the best baseline."""
    horizon, baseline, reading = summary["horizon"], best_baseline(summary), Reading(summary)
    loss = Reading(summary, LOSS)
    tasks = tasks[tasks["variant"] == IN_DISTRIBUTION]
    of_method = {str(name): rows.set_index("task") for name, rows in tasks.groupby("method", sort=False)}

    def number(method: str, task: int, column: str) -> float:
        return float(of_method[method][column].loc[task])

    rows = []
    for task in worst_tasks(summary, tasks, _WORST_NAMED):
        cells = [loss.value(number(summary["model"], task, f"{LOSS}_{step}")) for step in (0, horizon)]
        cells += [reading.value(number(summary["model"], task, f"{reading.name}_{horizon}"))] if reading.name != LOSS else []
        cells += [loss.value(number(baseline, task, f"{LOSS}_{horizon}"))] if baseline else []
        rows.append(row(tables_by_task.name_of(summary, task), *cells))
    headings = ["meta-test task", "loss before", f"after {counted(horizon, 'step')}"]
    headings += [reading.title] if reading.name != LOSS else []
    headings += [f"loss of {summary['methods'][baseline]['label']}"] if baseline else []
    return Table("The worst tasks", columns(*headings), tuple(rows))


def _cost(spec: PipelineSpec, upstream: Mapping[str, StageOutput]) -> dict[str, Any]:
    extra = upstream["train"].extra
    total = sum(output.seconds for output in upstream.values())
    stages = [row(name, seconds(output.seconds)) for name, output in upstream.items()]
    shares = extra.get("time_shares", {})
    parts = list(next(iter(shares.values()), {}))
    labels = {method.key(spec.train): method.label(spec.train) for method in compared(spec)}
    phases = []
    for name, spent in extra.get("seconds_by_phase", {}).items():
        iterations = extra.get("iterations_by_phase", {}).get(name)
        cells = [f"{iterations:,}" if iterations else NONE, seconds(spent)]
        cells += [f"{iterations / spent:.4g}" if iterations and spent else NONE]
        cells += [f"{shares[name][part]:.0%}" if part in shares.get(name, {}) else NONE for part in parts]
        phases.append(row(labels.get(name, name), *cells))
    rest = "the percentages are shares of a training's time; the rest went to curves and checkpoints" if parts else ""
    return {
        "total": total,
        "stages": Table("", columns("stage", "time"), (*stages, row("together", seconds(total), strong=True))),
        "phases": Table("", columns("training", "iterations", "time", "iterations a second", *parts), tuple(phases), joined(rest)),
        "best_iteration": extra.get("best_iteration"),
    }
