"""The report over the repetitions of a pipeline: several seeds, or several splits of the data."""

import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from metaopt_core.evaluation.verdict import Summary, verdict
from metaopt_core.reporting import figures, tables, tables_by_shots
from metaopt_core.reporting.html import image, page
from metaopt_core.reporting.numbers import NONE, Reading
from metaopt_core.reporting.page import tiles
from metaopt_core.reporting.table import Cell, Table, columns, row
from metaopt_core.reporting.words import in_short
from metaopt_core.spec.as_yaml import spec_yaml
from metaopt_core.spec.pipeline import PipelineSpec


def render(spec: PipelineSpec, summary: Summary, each: Mapping[str, Summary], reports: Mapping[str, Path]) -> str:
    """The page. summary: of all repetitions together; each: name → summary of one; reports: name → its own page."""
    drawn = {"adaptation": figures.adaptation(summary)}
    if summary["shifted"]:
        drawn["shifted"] = figures.shifted(summary)
    if len(summary.get("by_shots", ())) > 1:
        drawn["by_shots"] = figures.by_shots(summary)
    return page(
        "repetitions.html",
        title=spec.name,
        description=spec.description,
        yaml=spec_yaml(spec),
        summary=summary,
        verdict=in_short(summary),
        tiles=list(tiles(summary)),
        tables={
            "each": _each(each),
            "compared": tables.compared(summary),
            "pairs": tables.pairs(summary),
            "other_metrics": tables.other_metrics(summary),
            "by_step": tables.by_step(summary),
            "by_shots": tables_by_shots.error(summary),
            "by_shots_in_unit": tables_by_shots.in_unit(summary),
            "shifted": tables.shifted(summary) if summary["shifted"] else None,
        },
        reports={which: path.as_uri() for which, path in reports.items()},
        figures={name: image(_png(figure)) for name, figure in drawn.items()},
    )


def _each(each: Mapping[str, Summary]) -> Table:
    """One row for each repetition: the logged model, the best baseline, and their difference."""
    rows = []
    for which, summary in each.items():
        reading, found = Reading(summary), verdict(summary)
        values: list[str | Cell] = [reading.interval(found.entry[reading.name]), reading.value(found.entry[reading.name]["worst"])]
        if found.baseline and found.of_baseline:
            label = summary["methods"][found.baseline]["label"]
            values += [Cell(reading.interval(found.of_baseline[reading.name]), label), reading.difference(found.paired)]
        else:
            values += [NONE, NONE]
        rows.append(row(which, *values, f"{found.entry['diverged']:,}"))
    first = next(iter(each.values()))
    model = first["methods"][first["model"]]["label"]
    headings = ("", model, "worst 10%", "best baseline", f"{model} minus it", "diverged tasks")
    return Table(f"{Reading(first).heading} of each", columns(*headings), tuple(rows), ("mean ± 95% interval over tasks",))


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figures.save(figure, data)
    return data.getvalue()
