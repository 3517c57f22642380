"""Tables of results with each number of support examples, of single tasks, and of intervals."""

from typing import Any

import pandas as pd
import pytest

from metaopt_core.reporting import figures, html, tables_by_shots, tables_by_task
from tests.summaries import LOSS, method, statistics, summary, three_methods


@pytest.fixture
def found() -> dict[str, Any]:
    """Results with 5 and with 20 examples; a task is left out with 20."""
    methods = three_methods(1)
    methods["random"] |= {"reference": True}
    metrics = {"loss": LOSS, "rmse": LOSS | {"title": "RMSE", "unit": "pKd", "in_unit": True}}
    for made in methods.values():
        for entry in made["steps"]:
            entry["rmse"] = statistics(2.0)

    def of(shots: int, harmed: float) -> dict[str, Any]:
        each: dict[str, dict[str, Any]] = {name: {"loss": statistics(1 / shots), "rmse": statistics(2 / shots)} for name in methods}
        for name in ("maml", "pretrained"):
            each[name]["harmed"] = harmed
        return {"shots": shots, "tasks": 4 - (shots == 20), "left_out": int(shots == 20), "methods": each, "differences": []}

    whole = summary(methods, metrics=metrics, repeats=3)
    return whole | {"by_shots": [of(5, 0.25), of(20, 0.0)], "over_shots": of(10, 0.1)}


def test_a_row_a_method_and_a_column_a_number_of_examples_with_the_harmed_tasks(found: dict[str, Any]) -> None:
    table = tables_by_shots.error(found)
    assert table is not None
    assert [column.heading for column in table.columns] == ["", "5 examples", "20 examples", "harmed"]
    assert [cell.text for cell in table.rows[0].cells] == ["MAML", "0.200 ± 0.100", "0.050 ± 0.100", "25% … 0%"]
    assert table.rows[-1].cells[-1].text == "–"  # nothing is worse than itself
    assert "with 20, 1 task left out" in table.note
    assert "each task 3 times with other support examples" in table.note
    assert "worse than random init" in table.note
    in_unit = tables_by_shots.in_unit(found)
    assert in_unit is not None
    assert in_unit.title.startswith("RMSE (pKd) by number of support examples")
    assert tables_by_shots.error(summary(three_methods())) is None


def test_the_figure_has_a_line_for_each_method(found: dict[str, Any]) -> None:
    (axes,) = figures.by_shots(found).axes
    assert [line.get_label() for line in axes.get_lines()] == ["MAML", "pre-trained", "random init"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["5", "20"]


def test_every_task_has_a_row_by_its_name_the_worst_first_in_a_table_that_a_click_sorts(found: dict[str, Any]) -> None:
    rows = [("in-distribution", name, task, loss) for name in found["methods"] for task, loss in enumerate((1.0, 3.0, 2.0))]
    tasks = pd.DataFrame(rows, columns=["variant", "method", "task", "loss_1"])
    table = tables_by_task.by_task(found | {"task_names": ["a", "<b>", "c"]}, tasks)
    assert table is not None
    assert [each.cells[0].text for each in table.rows] == ["<b>", "c", "a"]
    page = html.html(table, sortable=True)
    assert '<table class="sortable">' in page
    assert "&lt;b&gt;" in page
    assert tables_by_task.by_task(summary(three_methods()), tasks) is None


def test_coverage_is_said_of_methods_that_predict_intervals() -> None:
    sure = {percent: statistics(share, 0.02) for percent, share in (("50", 0.4), ("80", 0.7), ("95", 0.9))}
    table = tables_by_task.coverage(summary({"gp": method("GP", [{"loss": statistics(1.0)}], coverage=sure)}))
    assert table is not None
    assert [cell.text for cell in table.rows[0].cells] == ["GP", "40.0% ± 2.0%", "70.0% ± 2.0%", "90.0% ± 2.0%"]
    assert tables_by_task.coverage(summary(three_methods())) is None
