"""A table as data, which the terminal, Markdown and HTML render from the same texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "strong", "good", "bad", "soft"]


@dataclass(frozen=True)
class Cell:
    """A text in a table or a sentence. note: shown beside it if there is room. tone: how it is coloured. mark: a footnote mark;
    those of a column are aligned."""

    text: str
    note: str = ""
    tone: Tone = ""
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """heading: may contain a line break, which counts only if columns are narrow. left: texts, not numbers. wraps: long texts,
    which take several lines if columns are narrow."""

    heading: str
    left: bool = False
    wraps: bool = False


@dataclass(frozen=True)
class Row:
    """group: the heading of the rows that share it, if any. strong: the row that the table is about."""

    cells: tuple[Cell, ...]
    group: Cell | None = None
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """caption: what a reader needs to know about the numbers, as sentences or phrases."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """The caption as one sentence; empty if there is none."""
        text = "; ".join(self.caption)
        return f"{text[0].upper()}{text[1:]}." if text else ""

    def groups(self) -> list[tuple[Cell | None, list[Row]]]:
        """Rows by their group, in order."""
        found: list[tuple[Cell | None, list[Row]]] = []
        for row in self.rows:
            if not found or found[-1][0] != row.group:
                found.append((row.group, []))
            found[-1][1].append(row)
        return found


def row(*cells: str | Cell, group: Cell | None = None, strong: bool = False) -> Row:
    return Row(tuple(Cell(cell) if isinstance(cell, str) else cell for cell in cells), group, strong)


def columns(*headings: str, left: int = 1) -> tuple[Column, ...]:
    """Columns by their headings; the first `left` hold texts."""
    return tuple(Column(heading, place < left) for place, heading in enumerate(headings))


def joined(*notes: str) -> tuple[str, ...]:
    """The notes that are not empty."""
    return tuple(note for note in notes if note)


def select(table: Table, places: Sequence[int]) -> Table:
    """The table with only some of its columns."""
    rows = tuple(Row(tuple(each.cells[place] for place in places), each.group, each.strong) for each in table.rows)
    return Table(table.title, tuple(table.columns[place] for place in places), rows, table.caption)
