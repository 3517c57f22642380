"""Tables, sentences and whole pages as HTML, for the reports."""

import base64
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup

from metaopt_core.reporting.numbers import counted, seconds
from metaopt_core.reporting.table import Cell, Column, Table


def html(table: Table, sortable: bool = False) -> Markup:
    """The table with its title and caption; everything in it is escaped.

    sortable: whether a click on a heading sorts it (`templates/sort.html` has the script).
    """
    parts = [Markup("<h3>{}</h3>").format(table.title)] if table.title else []
    kind = Markup(' class="sortable"') if sortable else Markup("")
    parts.append(Markup('<div class="scroll"><table{}>\n<tr>').format(kind))
    parts += [_cell("th", column, Cell(column.heading.replace("\n", " "))) for column in table.columns]
    parts.append(Markup("</tr>\n"))
    for group, rows in table.groups():
        if group:
            note = Markup(' <span class="note">{}</span>').format(group.note) if group.note else Markup("")
            line = Markup('<tr class="group"><td colspan="{}" class="left">{}{}</td></tr>\n')
            parts.append(line.format(len(table.columns), group.text, note))
        for row in rows:
            parts.append(Markup('<tr class="strong">') if row.strong else Markup("<tr>"))
            parts += [_cell("td", column, cell) for column, cell in zip(table.columns, row.cells, strict=True)]
            parts.append(Markup("</tr>\n"))
    parts.append(Markup("</table></div>\n"))
    if table.note:
        parts.append(Markup('<p class="note">{}</p>\n').format(table.note))
    return Markup("").join(parts)


def _cell(tag: Literal["th", "td"], column: Column, cell: Cell) -> Markup:
    names = " ".join([*(["left"] if column.left else []), *([cell.tone] if cell.tone else [])])
    note = Markup('<br><span class="note">{}</span>').format(cell.note) if cell.note else ""
    attribute = Markup(' class="{}"').format(names) if names else ""
    heading, value = Markup("<th{}>{}{}</th>"), Markup("<td{}>{}{}</td>")
    return (heading if tag == "th" else value).format(attribute, cell.text + cell.mark, note)


def prose(sentence: Sequence[Cell]) -> Markup:
    plain, toned = Markup("{}"), Markup('<strong class="{}">{}</strong>')
    return Markup("").join(toned.format(cell.tone, cell.text) if cell.tone else plain.format(cell.text) for cell in sentence)


def page(template: str, **values: Any) -> str:
    """A template of `templates/`, filled in."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "table": html,
        "sortable": partial(html, sortable=True),
        "prose": prose,
        "seconds": seconds,
        "counted": counted,
    }
    return environment.get_template(template).render(**values)


def images(*folders: Path) -> Iterator[tuple[str, str]]:
    """Every figure by its file name, as a data URL."""
    for folder in folders:
        for path in sorted(folder.glob("*.png")):
            yield path.stem, image(path.read_bytes())


def image(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
