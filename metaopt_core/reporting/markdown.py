"""Tables as Markdown, for Prefect's pages."""

import re
from collections.abc import Sequence

from metaopt_core.reporting.table import Cell, Table


def markdown(table: Table) -> str:
    """A heading, the table, and its caption."""
    lines = [f"## {_escaped(table.title)}", ""] if table.title else []
    lines.append(_line(*(column.heading.replace("\n", " ") for column in table.columns)))
    lines.append("|".join(["", *("---" if column.left else "---:" for column in table.columns), ""]))
    for group, rows in table.groups():
        if group:
            note = f" {_escaped(group.note)}" if group.note else ""
            lines.append(_line(_text(group, strong=True) + note, *[""] * (len(table.columns) - 1)))
        lines += [_line(*(_text(cell, row.strong) for cell in row.cells)) for row in rows]
    return "\n".join([*lines, "", *([_escaped(table.note), ""] if table.note else [])])


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _text(cell: Cell, strong: bool) -> str:
    text = _escaped(cell.text + cell.mark)  # the page is too narrow for notes
    return f"**{text}**" if strong and text else text


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text).replace("\n", " ")


def prose(sentence: Sequence[Cell]) -> str:
    return "".join(_text(cell, strong=cell.tone in ("strong", "good", "bad")) for cell in sentence)
