"""Tables on a terminal: nothing is wider than it, and nothing is cut."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from metaopt_core.reporting import tables, terminal
from metaopt_core.reporting.table import Table
from tests.summaries import method, statistics, summary, three_methods, variant


def on_terminal(table: Table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    terminal.show(console, table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _many_methods() -> Table:
    methods = {f"m{place}": method(f"method {place}", [{"loss": statistics(1000.0 * place)}] * 3) for place in range(9)}
    return tables.by_step(summary(methods))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_cut(width: int) -> None:
    methods = three_methods()
    far = variant(three_methods(), {"x": [5.0, 10.0]})
    for table in (_many_methods(), tables.compared(summary(methods)), tables.shifted(summary(methods, shifted={"far": far}))):
        text = on_terminal(table, width)
        assert max(cell_len(line) for line in text.splitlines()) <= width
        assert "…" not in text
        found = re.sub(r"\s+", " ", text)
        assert all(cell.text in found for each in table.rows for cell in each.cells)


def test_a_table_that_is_too_wide_is_in_parts_with_the_first_column_each() -> None:
    text = on_terminal(_many_methods(), 80)
    assert text.count("steps  ") >= 2
    assert text.count("by number of adaptation steps") == 1
    assert all(f"method {place}" in text for place in range(9))


def test_a_narrow_table_fits_into_80_columns_whole() -> None:
    assert on_terminal(tables.compared(summary(three_methods())), 80).count("MAML") == 2  # its row, and "MAML minus it"
