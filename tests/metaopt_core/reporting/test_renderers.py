"""One table on a terminal, as Markdown and as HTML: the same texts, whatever is in them."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from metaopt_core.reporting import html, tables, terminal
from metaopt_core.reporting.markdown import markdown, prose
from metaopt_core.reporting.table import Cell, Table, columns, row
from metaopt_core.reporting.words import in_short
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


NASTY = Table("A | b", columns("", "x_y"), (row(Cell("a|b*c"), Cell("<b>1</b>", note="[n](http://x)")),), ("caption <i>",))


def test_markdown_and_html_escape_what_they_are_given() -> None:
    text = markdown(NASTY)
    assert "| a\\|b\\*c | \\<b\\>1\\</b\\> |" in text
    assert "## A \\| b" in text
    page = str(html.html(NASTY))
    assert '<td class="left">a|b*c</td>' in page
    assert "&lt;b&gt;1&lt;/b&gt;" in page
    assert "<b>" not in page


def test_markdown_and_html_have_groups_and_the_models_row_in_bold() -> None:
    far = variant(three_methods(), {"x": [5.0, 10.0]})
    table = tables.shifted(summary(three_methods(), shifted={"far": far}))
    text = markdown(table)
    assert "| **far** x 5 to 10 |  |" in text
    assert "| **MAML** | **0.333 ± 0.100** |" in text
    page = str(html.html(table))
    assert '<tr class="group"><td colspan="6" class="left">far <span class="note">x 5 to 10</span></td></tr>' in page
    assert page.count('<tr class="strong">') == 2


def test_the_verdict_is_a_sentence_in_each() -> None:
    found = in_short(summary(three_methods(), tasks=1000))
    text = "".join(cell.text for cell in found)
    assert text == (
        "After 2 adaptation steps on 5 examples, MAML reaches a mean squared error of 0.333 ± 0.100 over 1,000 new tasks. "
        "2 tasks diverged. The best baseline, pre-trained, reaches 0.583 ± 0.100. Task by task, MAML is better: paired difference "
        "−0.250 ± 0.100."
    )
    assert "MAML is **better**" in prose(found)
    assert '<strong class="good">better</strong>' in html.prose(found)
    console = Console(file=io.StringIO(), width=80)
    terminal.say(console, found)


def test_a_model_that_is_worse_is_called_worse() -> None:
    methods = three_methods()
    methods["maml"]["steps"][2]["loss"] = statistics(9.0)
    assert '<strong class="bad">worse</strong>' in html.prose(in_short(summary(methods)))
    methods["maml"]["steps"][2]["loss"] = statistics(0.6)
    assert "neither better nor worse by more than chance" in html.prose(in_short(summary(methods)))
