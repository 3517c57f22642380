"""Tables as HTML and as Markdown: the same texts, and what is in them can't be taken for markup."""

from metaopt_core.reporting import html, tables
from metaopt_core.reporting.markdown import markdown
from metaopt_core.reporting.table import Cell, Table, columns, row
from tests.summaries import summary, three_methods, variant

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
