"""The tables of a pipeline's results, made from summary.json, which lists the methods, metrics and variants."""

from collections.abc import Iterable

from metaopt_core.evaluation.verdict import Statistics, Summary, at_horizon, best_baseline, difference, outcome, variants
from metaopt_core.reporting.numbers import NONE, NOT_FINITE, SURVIVES, Reading, change, counted, settings
from metaopt_core.reporting.table import Cell, Row, Table, Tone, columns, joined, row
from metaopt_core.spec.evaluate import IN_DISTRIBUTION

_STEPS_SHOWN = (0, 1, 2, 3, 5, 10, 20, 50, 100)


def steps_shown(summary: Summary) -> list[int]:
    """A few numbers of adaptation steps, including the horizon and the last."""
    last = len(summary["methods"][summary["model"]]["steps"]) - 1
    return sorted({step for step in _STEPS_SHOWN if step < last} | {last, summary["horizon"]})


def by_step(summary: Summary, steps: Iterable[int] | None = None) -> Table:
    """One row for each number of adaptation steps (all or some), one column for each method that takes steps."""
    reading = Reading(summary)
    methods = [method for method in summary["methods"].values() if method["takes_steps"]]
    shown = range(len(methods[0]["steps"])) if steps is None else steps
    rows = [row(str(step), *(reading.interval(each["steps"][step][reading.name]) for each in methods)) for step in shown]
    return Table(
        f"{reading.heading} by number of adaptation steps",
        columns("steps", *(method["label"] for method in methods), left=0),
        tuple(rows),
        joined(_interval(summary), _not_finite(rows)),
    )


def compared(summary: Summary) -> Table:
    """One row for each method, at the horizon."""
    reading, model = Reading(summary), summary["methods"][summary["model"]]
    diverged = any(at_horizon(summary, name)["diverged"] for name in summary["methods"])
    headings = ["", "step\nsize", "mean", *([] if reading.percent else ["median"]), "worst\n10%", "improved"]
    headings += (["inductive"] if model["inductive"] else []) + (["div."] if diverged else [])
    rows = []
    for name, method in summary["methods"].items():
        entry = at_horizon(summary, name)
        values = entry[reading.name]
        cells: list[str | Cell] = [_step_size(summary, name), reading.interval(values)]
        cells += [] if reading.percent else [reading.value(values["median"])]
        cells += [reading.value(values["worst"]), f"{entry['improved']:.1%}" if method["takes_steps"] else NONE]
        if model["inductive"]:
            cells += [reading.interval(method["inductive"][reading.name]) if method["inductive"] else NONE]
        cells += [f"{entry['diverged']:,}"] if diverged else []
        rows.append(row(method["label"], *cells, _against(summary, reading, name), strong=name == summary["model"]))
    return Table(
        f"{reading.heading} after {counted(summary['horizon'], 'adaptation step')}",
        columns(*headings, f"{model['label']}\nminus it"),
        tuple(rows),
        joined(
            f"{counted(summary['tasks'], 'meta-test task')}, {_kind(summary)}",
            _interval(summary),
            _of_differences(summary, reading),
            _normalization(summary, reading),
            f"{summary['algorithm']}'s step sizes learned, {summary['learned_lr']}" if summary["learned_lr"] else "",
            "div.: diverged tasks" if diverged else "no task diverged",
            _not_finite(rows),
        ),
    )


def pairs(summary: Summary) -> Table:
    """Differences between every two methods at the horizon: row minus column."""
    reading, names = Reading(summary), list(summary["methods"])
    labels = [summary["methods"][name]["label"] for name in names]
    rows = []
    for place, name in enumerate(names[:-1]):
        cells = [_difference(summary, reading, name, other) if at > place else "" for at, other in enumerate(names) if at]
        rows.append(row(labels[place], *cells, strong=name == summary["model"]))
    return Table(
        "Between every two methods: row minus column, task by task",
        columns("", *labels[1:]),
        tuple(rows),
        joined(_interval(summary), _of_differences(summary, reading)),
    )


def other_metrics(summary: Summary) -> Table | None:
    """The metrics by which methods are not compared, one a row, with one column for each method; none if there are none."""
    others = [Reading(summary, name) for name in summary["metrics"] if name != summary["primary"]]
    if not others:
        return None
    rows = []
    for reading in others:
        cells = []
        for name, method in summary["methods"].items():
            if reading.pooled:
                number = method["pooled"].get(reading.name)
                cells.append(NONE if number is None else reading.value(number))
            else:
                cells.append(reading.interval(at_horizon(summary, name)[reading.name]))
        rows.append(row(Cell(reading.heading, "the larger the better" if reading.larger_is_better else ""), *cells))
    return Table(
        f"Further metrics after {counted(summary['horizon'], 'adaptation step')}",
        columns("", *(method["label"] for method in summary["methods"].values())),
        tuple(rows),
        joined(
            _interval(summary) if not all(reading.pooled for reading in others) else "",
            "without an interval: of the queries of all tasks together" if any(reading.pooled for reading in others) else "",
            _not_finite(rows),
        ),
    )


def shifted(summary: Summary) -> Table:
    """Every method on the unshifted test tasks and on each shifted variant, at the horizon."""
    reading, model = Reading(summary), summary["methods"][summary["model"]]
    diverged = any(at_horizon(variant, name)["diverged"] for variant in variants(summary).values() for name in variant["methods"])
    rows = []
    for name, variant in variants(summary).items():
        group = Cell(name, settings(variant.get("changes", {})))
        for method, results in variant["methods"].items():
            entry = at_horizon(variant, method)
            values = entry[reading.name]
            cells: list[str | Cell] = [reading.interval(values), Cell(change(_change(results)), tone="soft")]
            cells += [] if reading.percent else [reading.value(values["median"])]
            cells += [*([f"{entry['diverged']:,}"] if diverged else []), _against(variant, reading, method)]
            rows.append(row(results["label"], *cells, group=group, strong=method == summary["model"]))
    headings = ["", "mean", "Δ", *([] if reading.percent else ["median"]), *(["div."] if diverged else [])]
    return Table(
        f"{reading.heading} on shifted test tasks, after {counted(summary['horizon'], 'adaptation step')}",
        columns(*headings, f"{model['label']}\nminus it"),
        tuple(rows),
        _of_shifted(summary, reading, diverged, rows),
    )


def shifted_in_short(summary: Summary) -> Table:
    """The logged model and the best baseline, on the unshifted test tasks and on each shifted variant."""
    reading, model = Reading(summary), summary["model"]
    diverged = any(at_horizon(variant, model)["diverged"] for variant in variants(summary).values())
    rows = []
    for name, variant in variants(summary).items():
        baseline, entry = best_baseline(variant), at_horizon(variant, model)
        cells: list[str | Cell] = [
            reading.interval(entry[reading.name]),
            Cell(change(_change(variant["methods"][model])), tone="soft"),
        ]
        cells += [f"{entry['diverged']:,}"] if diverged else []
        of = variant["methods"][baseline]["label"] if baseline else NONE
        paired = _difference(variant, reading, model, baseline) if baseline else ""
        rows.append(row(name, *cells, of, paired))
    label = summary["methods"][model]["label"]
    made = columns("test tasks", label, "Δ", *(["div."] if diverged else []), "best baseline", f"{label}\nminus it")
    return Table(
        f"{reading.heading} on shifted test tasks, after {counted(summary['horizon'], 'adaptation step')}",
        made,
        tuple(rows),
        _of_shifted(summary, reading, diverged, rows),
    )


# --- cells --------------------------------------------------------------------------------------------------------------


def _against(summary: Summary, reading: Reading, name: str) -> Cell:
    """The logged model minus a method."""
    model = summary["model"]
    return _difference(summary, reading, model, name) if name != model else Cell("")


def _difference(summary: Summary, reading: Reading, of: str, against: str) -> Cell:
    paired = difference(summary, of, against, reading.name)
    tones: dict[str, Tone] = {"better": "good", "worse": "bad", "unclear": ""}
    if not paired:
        return Cell("")
    mark = SURVIVES if paired.get("survives") else ""
    return Cell(reading.difference(paired), tone=tones[outcome(summary, paired)], mark=mark)


def _step_size(summary: Summary, name: str) -> Cell:
    """The step size, and for a baseline how it was found."""
    method, grid = summary["methods"][name], summary["baseline_lrs"]
    lr = method["inner_lr"]
    if lr is None:
        return Cell("learned" if method["takes_steps"] and not method["baseline"] and summary["learned_lr"] else NONE)
    chosen = method["baseline"] and method["takes_steps"] and len(grid) > 1
    edge = chosen and lr in (min(grid), max(grid))
    return Cell(f"{lr:g}", ("chosen, at the edge" if edge else "chosen") if chosen else "")


def _change(results: Summary) -> float | None:
    found: Statistics = results.get("change", {"mean": None})
    return found["mean"]


# --- captions -----------------------------------------------------------------------------------------------------------


def _interval(summary: Summary) -> str:
    if repetitions := summary.get("repetitions"):
        return f"mean ± 95% interval over {counted(repetitions['count'], repetitions['kind'])}"
    what = "classes" if summary["targets"] == "classes" else "groups"
    by = f" (cluster bootstrap over the {summary['groups']:,} {what} that tasks share)" if summary["groups"] else ""
    return f"mean ± 95% interval{by}"


def _of_differences(summary: Summary, reading: Reading) -> str:
    return reading.of_differences(len(summary["differences"])) if summary["differences"] else ""


def _kind(summary: Summary) -> str:
    return f"{summary['ways']}-way {summary['shots']}-shot" if summary["ways"] else f"{summary['shots']}-shot"


def _normalization(summary: Summary, reading: Reading) -> str:
    of = summary["methods"][summary["model"]]
    if not summary["normalization"]:
        return ""
    said = str(summary["normalization"])
    said += "; inductive: each query without the others" if of["inductive"] else ""
    if of["collected"]:
        said += f"; {of['label']} by statistics collected for the step: {reading.interval(of['collected'][reading.name])}"
    return said


def _not_finite(rows: Iterable[Row]) -> str:
    shown = any(NOT_FINITE in cell.text for each in rows for cell in each.cells)
    return f"{NOT_FINITE}: some tasks diverged so far that there is no mean" if shown else ""


def _of_shifted(summary: Summary, reading: Reading, diverged: bool, rows: Iterable[Row]) -> tuple[str, ...]:
    return joined(
        _interval(summary),
        f"Δ: change of the mean against {IN_DISTRIBUTION}",
        f"div.: diverged tasks, of {summary['tasks']:,}" if diverged else "no task diverged",
        reading.of_differences(),
        _not_finite(rows),
    )
