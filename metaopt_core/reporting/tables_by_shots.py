"""Tables of results with each number of support examples, from summary.json."""

from collections.abc import Mapping
from typing import Any

from metaopt_core.evaluation.verdict import Summary
from metaopt_core.reporting.numbers import NONE, Reading, counted
from metaopt_core.reporting.table import Cell, Table, columns, joined, row


def error(summary: Summary, metric: str | None = None) -> Table | None:
    """A row a method and a column a number of support examples; none if the summary has no such results.

    metric: by its name; none means the one that methods are compared by, with the share of harmed tasks.
    """
    entries = summary.get("by_shots")
    if not entries:
        return None
    reading = Reading(summary, metric)
    harms = metric is None and any("harmed" in results for entry in entries for results in entry["methods"].values())
    rows = []
    for name, method in summary["methods"].items():
        cells: list[str | Cell] = [reading.interval(entry["methods"][name][reading.name]) for entry in entries]
        cells += [_harmed(entries, name)] if harms else []
        rows.append(row(method["label"], *cells, strong=name == summary["model"]))
    headings = [counted(entry["shots"], "example") for entry in entries]
    repeats = summary.get("repeats", 1)
    left_out = {entry["shots"]: entry["left_out"] for entry in entries if entry["left_out"]}
    return Table(
        f"{reading.heading} by number of support examples" + (" of each class" if summary["ways"] else ""),
        columns("", *headings, *(["harmed"] if harms else [])),
        tuple(rows),
        joined(
            f"{_tasks(entries)}, mean ± 95% interval",
            "the larger the better" if reading.larger_is_better else "",
            f"each task {repeats} times with other support examples, averaged first" if repeats > 1 else "",
            f"harmed: tasks on which it is worse than {_reference(summary)}, fewest to most examples" if harms else "",
            "; ".join(f"with {shots}, {counted(count, 'task')} left out: too few examples" for shots, count in left_out.items()),
        ),
    )


def in_unit(summary: Summary) -> Table | None:
    """The same of the first metric in the target's own unit, if there is one and methods are not compared by it."""
    named = [name for name, read in summary["metrics"].items() if read.get("in_unit") and name != summary["primary"]]
    return error(summary, named[0]) if named else None


def _harmed(entries: list[Mapping[str, Any]], name: str) -> str:
    shares = [entry["methods"][name].get("harmed") for entry in entries]
    if None in shares:
        return NONE
    return f"{shares[0]:.0%}" if len(shares) == 1 else f"{shares[0]:.0%} … {shares[-1]:.0%}"


def _reference(summary: Summary) -> str:
    return next((method["label"] for method in summary["methods"].values() if method.get("reference")), "the reference")


def _tasks(entries: list[Mapping[str, Any]]) -> str:
    counts = sorted({entry["tasks"] for entry in entries})
    return f"{counts[0]:,} to {counted(counts[-1], 'meta-test task')}" if len(counts) > 1 else counted(counts[0], "meta-test task")
