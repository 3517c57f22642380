"""The tables of a summary, with whatever methods, metrics and variants it has."""

from typing import Any

import pytest

from metaopt_core.reporting import tables
from metaopt_core.reporting.table import Table
from tests.summaries import ACCURACY, LOSS, method, statistics, summary, three_methods, variant


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in table.rows]


def headings(table: Table) -> list[str]:
    return [column.heading.replace("\n", " ") for column in table.columns]


def test_by_step_has_a_row_a_step_and_a_column_a_method_that_takes_any() -> None:
    methods = three_methods() | {"none": method("no adaptation", [{"loss": statistics(1.0)}] * 3, takes_steps=False)}
    table = tables.by_step(summary(methods))
    assert headings(table) == ["steps", "MAML", "pre-trained", "random init"]
    assert texts(table)[1] == ["1", "0.500 ± 0.100", "0.750 ± 0.100", "1.000 ± 0.100"]
    assert [row[0] for row in texts(tables.by_step(summary(methods), [0, 2]))] == ["0", "2"]


def test_the_terminal_shows_a_few_steps_the_horizon_and_the_last_among_them() -> None:
    assert tables.steps_shown(summary(three_methods(25), horizon=7)) == [0, 1, 2, 3, 5, 7, 10, 20, 25]


def test_methods_are_compared_at_the_horizon_with_the_model_minus_each() -> None:
    table = tables.compared(summary(three_methods()))
    assert headings(table) == ["", "step size", "mean", "median", "worst 10%", "improved", "div.", "MAML minus it"]
    assert texts(table)[0] == ["MAML", "0.01", "0.333 ± 0.100", "0.900", "2.000", "50.0%", "2", ""]
    assert [row.cells[-1].tone for row in table.rows] == ["", "good", "good"]
    assert [row.strong for row in table.rows] == [True, False, False]
    assert texts(table)[1][-1] == "−0.250 ± 0.100"
    assert "5-shot" in table.note


def test_a_larger_number_is_better_where_the_metric_says_so() -> None:
    methods = {
        "a": method("A", [{"acc": statistics(0.5), "loss": statistics(9.0)}]),
        "b": method("B", [{"acc": statistics(0.9), "loss": statistics(1.0)}]),
    }
    table = tables.compared(summary(methods, metrics={"acc": ACCURACY, "loss": LOSS}))
    assert table.rows[1].cells[-1].tone == "bad"
    assert table.rows[1].cells[-1].text == "−40.0 ± 10.0"
    assert "median" not in headings(table)
    assert "percentage points" in table.note


def test_a_difference_that_chance_may_explain_has_no_colour() -> None:
    methods = {"a": method("A", [{"loss": statistics(1.0)}]), "b": method("B", [{"loss": statistics(1.05)}])}
    assert tables.compared(summary(methods)).rows[1].cells[-1].tone == ""


def test_a_difference_that_survives_the_correction_is_marked_and_the_caption_says_for_how_many() -> None:
    table = tables.compared(summary(three_methods()))
    assert [row.cells[-1].mark for row in table.rows] == ["", "*", "*"]
    assert "*: differs from 0 also when corrected for 3 comparisons (Holm)" in table.note
    found = summary(three_methods())
    found["differences"][0]["loss"]["survives"] = False
    row = tables.compared(found).rows[1]
    assert (row.cells[-1].mark, row.cells[-1].tone) == ("", "")


def test_the_caption_says_over_what_intervals_are() -> None:
    methods = three_methods()
    assert "mean ± 95% interval;" in tables.compared(summary(methods)).note
    of_classes = tables.compared(summary(methods, targets="classes", groups=423))
    assert "95% interval (cluster bootstrap over the 423 classes that tasks share)" in of_classes.note
    assert (
        "95% interval over 3 seeds" in tables.compared(summary(methods, repetitions={"kind": "seed", "count": 3}, groups=423)).note
    )


def test_a_mean_that_is_missing_is_explained() -> None:
    methods = {
        "a": method("A", [{"loss": statistics(1.0)}]),
        "b": method("B", [{"loss": statistics(None), "diverged": 13}]),
    }
    table = tables.compared(summary(methods))
    assert texts(table)[1][2] == "not finite"
    assert texts(table)[1][headings(table).index("div.")] == "13"
    assert "not finite: some tasks diverged" in table.note
    assert "not finite" not in tables.compared(summary({"a": methods["a"]})).note


@pytest.mark.parametrize("count", [0, 1, 12])
def test_any_number_of_further_metrics_has_a_row_each(count: int) -> None:
    names = [f"extra{place}" for place in range(count)]
    entry = {"loss": statistics(1.0)} | {name: statistics(2.0) for name in names}
    described = {"loss": LOSS} | {name: LOSS | {"title": f"{name} of it", "unit": "nats"} for name in names}
    table = tables.other_metrics(summary({"a": method("A", [entry]), "b": method("B", [entry])}, metrics=described))
    if not count:
        assert table is None
        return
    assert table is not None
    assert [row.cells[0].text for row in table.rows] == [f"Extra{place} of it (nats)" for place in range(count)]
    assert texts(table)[0][1:] == ["2.000 ± 0.100", "2.000 ± 0.100"]


def test_a_pooled_metric_is_one_number_of_all_tasks() -> None:
    pooled = LOSS | {"title": "calibration error", "form": "percent", "pooled": True}
    methods = {
        "a": method("A", [{"loss": statistics(1.0)}], pooled={"ece": 0.034}),
        "b": method("B", [{"loss": statistics(1.0)}]),
    }
    table = tables.other_metrics(summary(methods, metrics={"loss": LOSS, "ece": pooled}))
    assert table is not None
    assert texts(table) == [["Calibration error", "3.4%", "–"]]


def _shifted() -> dict[str, Any]:
    far = {name: {**one, "steps": [dict(entry) for entry in one["steps"]]} for name, one in three_methods().items()}
    far["maml"]["steps"][2] |= {"loss": statistics(4.0), "diverged": 0}
    return summary(three_methods(), shifted={"far": variant(far, {"x": [5.0, 10.0]})})


def test_shifted_tasks_are_groups_with_what_they_change() -> None:
    table = tables.shifted(_shifted())
    assert [(group.text, group.note) for group, _ in table.groups() if group] == [("in-distribution", ""), ("far", "x 5 to 10")]
    assert texts(table)[3][:3] == ["MAML", "4.000 ± 0.100", "×12"]
    assert texts(table)[4][-1] == "+3.417 ± 0.100"


def test_in_short_a_variant_is_one_row_beside_its_best_baseline() -> None:
    table = tables.shifted_in_short(_shifted())
    assert texts(table) == [
        ["in-distribution", "0.333 ± 0.100", "", "2", "pre-trained", "−0.250 ± 0.100"],
        ["far", "4.000 ± 0.100", "×12", "0", "pre-trained", "+3.417 ± 0.100"],
    ]


def test_pairs_are_row_minus_column() -> None:
    table = tables.pairs(summary(three_methods()))
    assert headings(table) == ["", "pre-trained", "random init"]
    assert texts(table) == [["MAML", "−0.250 ± 0.100", "−0.500 ± 0.100"], ["pre-trained", "", "−0.250 ± 0.100"]]


def test_a_step_size_at_the_edge_of_what_was_tried_is_said() -> None:
    methods = three_methods()
    methods["pretrained"]["inner_lr"] = 0.003
    methods["random"]["inner_lr"] = None
    cells = [row.cells[1] for row in tables.compared(summary(methods)).rows]
    assert [(cell.text, cell.note) for cell in cells] == [("0.01", ""), ("0.003", "chosen, at the edge"), ("–", "")]
