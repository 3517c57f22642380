"""Tables and sentences on a terminal, by rich. A table that is too wide is shown in parts, each with the first column."""

from collections.abc import Iterator, Sequence

import rich.table
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from metaopt_core.reporting.table import Cell, Row, Table, select

_STYLES = {"": "", "strong": "bold", "good": "bold green", "bad": "bold red", "soft": "dim"}
_GAPS = (2, 1)  # between columns, if there is room for it
_WRAPPED = 20  # the minimum width of a column of long texts


def show(console: Console, table: Table) -> None:
    """Print a table with its title and caption, and an empty line."""
    if table.title:
        console.print(Text(table.title, style="bold"))
    gap = next((gap for gap in _GAPS if _total(table, range(len(table.columns)), gap) <= console.width), _GAPS[-1])
    for part in _parts(table, console.width, gap):
        widths = _widths(part, console.width, gap)
        for place, (group, rows) in enumerate(part.groups() or [(None, [])]):
            if not place:
                console.print(_rendered(part, [], widths, gap, header=True))
            elif group:
                console.print()
            if group:
                console.print(Text(group.text, style="bold"), no_wrap=True, overflow="ellipsis")
            console.print(_rendered(part, rows, widths, gap))
    if table.note:
        console.print(Text(table.note, style="dim"))
    console.print()


def say(console: Console, sentence: Sequence[Cell]) -> None:
    console.print(Text("").join(Text(cell.text, style=_STYLES[cell.tone]) for cell in sentence))


def _parts(table: Table, width: int, gap: int) -> Iterator[Table]:
    places = [0]
    for place in range(1, len(table.columns)):
        if len(places) > 1 and _total(table, [*places, place], gap) > width:
            yield select(table, places)
            places = [0]
        places.append(place)
    yield select(table, places)


def _total(table: Table, places: Sequence[int], gap: int) -> int:
    return sum(_width(table, place) + gap for place in places) - gap


def _width(table: Table, place: int) -> int:
    """The width that a column needs; for one that wraps, the least that suffices."""
    width = max(map(cell_len, [*table.columns[place].heading.split("\n"), *_texts(table, place)]))
    return min(width, _WRAPPED) if table.columns[place].wraps else width


def _widths(table: Table, width: int, gap: int) -> list[int]:
    """The widths of all columns; those that wrap share the remaining space."""
    widths = [_width(table, place) for place in range(len(table.columns))]
    wrapping = [place for place, column in enumerate(table.columns) if column.wraps]
    for place in wrapping:
        left = max(0, width - _total(table, range(len(widths)), gap)) // len(wrapping)
        longest = max(map(cell_len, _texts(table, place)), default=0)
        widths[place] = min(widths[place] + left, max(longest, widths[place]))
    return widths


def _rendered(table: Table, rows: Sequence[Row], widths: Sequence[int], gap: int, header: bool = False) -> rich.table.Table:
    # the box draws one space between columns
    made = rich.table.Table(box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), pad_edge=False, show_edge=False, show_header=header)
    for column, width in zip(table.columns, widths, strict=True):
        made.add_column(
            column.heading, justify="left" if column.left else "right", width=width, no_wrap=not column.wraps, overflow="fold"
        )
    texts = list(zip(*(_texts(table, place) for place in range(len(table.columns))), strict=True))
    for each in rows:
        own = texts[next(place for place, one in enumerate(table.rows) if one is each)]
        made.add_row(*(_styled(text, cell, each.strong) for text, cell in zip(own, each.cells, strict=True)))
    return made


def _texts(table: Table, place: int) -> list[str]:
    """The texts of a column: indented below the heading of a group, with room for a mark if any of them has one."""
    room = max((len(each.cells[place].mark) for each in table.rows), default=0)
    indents = ["  " if each.group and not place else "" for each in table.rows]
    cells = [each.cells[place] for each in table.rows]
    return [f"{indent}{cell.text}{cell.mark:<{room}}" for indent, cell in zip(indents, cells, strict=True)]


def _styled(text: str, cell: Cell, strong: bool) -> Text:
    return Text(text, style=_STYLES[cell.tone].removeprefix("bold ") or ("bold" if strong else ""))
