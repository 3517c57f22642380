"""A table as data: its groups, its caption, and some of its columns."""

from metaopt_core.reporting.table import Cell, Table, columns, joined, row, select


def test_rows_that_share_a_heading_are_a_group_in_their_order() -> None:
    near, far = Cell("near"), Cell("far", note="x 5 to 10")
    table = Table(
        "t", columns("a", "b"), (row("1", "2"), row("3", "4", group=near), row("5", "6", group=near), row("7", "8", group=far))
    )
    groups = [(group and group.text, [each.cells[0].text for each in rows]) for group, rows in table.groups()]
    assert groups == [(None, ["1"]), ("near", ["3", "5"]), ("far", ["7"])]


def test_a_caption_is_one_sentence_of_the_notes_that_there_are() -> None:
    table = Table("t", columns("a"), (), joined("mean ± 95% interval", "", "no task diverged"))
    assert table.note == "Mean ± 95% interval; no task diverged."
    assert Table("t", columns("a"), ()).note == ""


def test_some_of_its_columns_keep_headings_groups_and_what_it_is_about() -> None:
    group = Cell("g")
    table = Table("t", columns("a", "b", "c"), (row("1", "2", "3", group=group, strong=True),), ("note",))
    found = select(table, [0, 2])
    assert [column.heading for column in found.columns] == ["a", "c"]
    assert found.rows == (row("1", "3", group=group, strong=True),)
    assert (found.title, found.caption) == ("t", ("note",))
    assert [column.left for column in found.columns] == [True, False]  # the first holds texts
