"""Tables of single tasks, and of how often intervals hold what they are to hold."""

import pandas as pd

from metaopt_core.evaluation.verdict import Summary, best_baseline
from metaopt_core.reporting.numbers import NONE, Reading, counted
from metaopt_core.reporting.table import Cell, Table, columns, joined, row
from metaopt_core.spec.evaluate import IN_DISTRIBUTION

_MOST_TASKS = 1000
_INTERVALS = ("50", "80", "95")


def by_task(summary: Summary, tasks: pd.DataFrame) -> Table | None:
    """A row a test task, and a column for each of the methods that matter most; none where results are by no number of examples.

    tasks: a row a variant, method and task.
    """
    if not summary.get("by_shots"):
        return None
    reading = Reading(summary)
    column, shown = f"{reading.name}_{summary['horizon']}", _shown(summary)
    tasks = tasks[tasks["variant"] == IN_DISTRIBUTION]
    values = {method: tasks[tasks["method"] == method].set_index("task")[column] for method in shown}
    numbers = list(values[shown[0]].sort_values(ascending=reading.larger_is_better, na_position="first").index[:_MOST_TASKS])
    rows = [row(name_of(summary, task), *(reading.value(float(values[method][task])) for method in shown)) for task in numbers]
    return Table(
        f"{reading.heading} of every task with {counted(summary['shots'], 'example')}",
        columns("task", *(summary["methods"][method]["label"] for method in shown)),
        tuple(rows),
        joined(
            "the worst first; a click on a heading sorts",
            f"the {_MOST_TASKS:,} worst" if len(values[shown[0]]) > _MOST_TASKS else "",
        ),
    )


def _shown(summary: Summary) -> list[str]:
    """The logged model, what is recommended and what that was compared with, the best baseline, and the reference."""
    recommended = summary.get("recommendation", {})
    methods = summary["methods"]
    wanted = [summary["model"], recommended.get("use"), recommended.get("against"), best_baseline(summary)]
    wanted += [name for name, method in methods.items() if not method["baseline"] or method.get("reference")]
    return [name for name in dict.fromkeys(wanted) if name in methods]


def name_of(summary: Summary, task: int) -> str:
    """What a test task is called: its number, where tasks have no names."""
    names = summary.get("task_names")
    return str(names[task]) if names else str(task)


def coverage(summary: Summary) -> Table | None:
    """A row a method whose predictions are distributions: the shares of queries within their intervals; none without one."""
    found = {name: method["coverage"] for name, method in summary["methods"].items() if method.get("coverage")}
    if not found:
        return None
    rows = [
        row(
            summary["methods"][name]["label"],
            *(_share(shares.get(percent)) for percent in _INTERVALS),
            strong=name == summary["model"],
        )
        for name, shares in found.items()
    ]
    return Table(
        "How many of the targets lie within intervals that are to hold 50, 80 and 95 % of them",
        columns("", *(f"{percent} %" for percent in _INTERVALS)),
        tuple(rows),
        joined("mean over tasks ± 95% interval", "fewer than an interval is to hold: predictions are surer than they should be"),
    )


def _share(statistics: "dict[str, float | None] | None") -> Cell:
    if statistics is None or statistics["mean"] is None:
        return Cell(NONE)
    half = "" if statistics["ci95"] is None else f" ± {statistics['ci95']:.1%}"
    return Cell(f"{statistics['mean']:.1%}{half}")
