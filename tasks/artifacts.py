"""What stages show on the pages of Prefect's flow runs."""

import re
from collections.abc import Mapping
from typing import Any

from metaopt_core.reporting import tables
from metaopt_core.reporting.markdown import markdown, prose
from metaopt_core.reporting.words import in_short
from metaopt_core.spec.pipeline import PipelineSpec


def results(spec: PipelineSpec, summary: Mapping[str, Any], report: str = "", whereabouts: str = "") -> str:
    """The verdict and all tables, as Markdown. report: its address, if a server shows it; whereabouts: a line about it."""
    shown = [tables.compared(summary), tables.by_step(summary), tables.other_metrics(summary)]
    shown += [tables.shifted(summary)] if summary["shifted"] else []
    heading = f"# {spec.name}" + (f": [report]({report})" if report else "")
    parts = [heading, prose(in_short(summary)), "", *([whereabouts, ""] if whereabouts else [])]
    return "\n".join([*parts, *(markdown(table) for table in shown if table)])


def key(spec: PipelineSpec, suffix: str) -> str:
    """An artifact's key: Prefect allows lower-case letters, digits and dashes."""
    return f"{re.sub(r'[^a-z0-9]+', '-', spec.name).strip('-')}-{suffix}"
