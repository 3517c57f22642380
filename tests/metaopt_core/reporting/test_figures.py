"""Figures say what the summary says, fit what there is to show, and can be read where results are not as usual."""

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metaopt_core.reporting import figures
from tests.summaries import ACCURACY, LOSS, method, statistics, summary, three_methods, variant


def labels(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def line(figure: Figure, label: str) -> Any:
    """Its x and y."""
    found = next(one for one in figure.axes[0].lines if one.get_label() == label)
    return list(np.asarray(found.get_xdata())), list(np.asarray(found.get_ydata()))


def test_adaptation_is_the_mean_after_each_number_of_steps_of_each_method_that_has_a_line() -> None:
    methods = three_methods() | {"unadapted": method("no adaptation", [{"loss": statistics(1.0)}] * 3, line="")}
    figure = figures.adaptation(summary(methods))
    assert labels(figure) == ["MAML", "pre-trained", "random init"]
    assert line(figure, "MAML") == ([0, 1, 2], pytest.approx([1, 1 / 2, 1 / 3]))
    assert figure.axes[0].get_ylim()[0] == 0


def test_a_mean_that_is_missing_is_no_point() -> None:
    steps = [{"loss": statistics(value)} for value in (1.0, None, 0.5)]
    figure = figures.adaptation(summary({"maml": method("MAML", steps)}))
    assert line(figure, "MAML") == ([0, 2], [1.0, 0.5])


@pytest.mark.parametrize(("losses", "scale"), [((3.0, 2.0, 1.0), "linear"), ((1e6, 1.0, 0.9), "log"), ((-1e6, 1.0, 2.0), "linear")])
def test_numbers_that_would_flatten_all_others_get_a_logarithmic_axis(losses: tuple[float, ...], scale: str) -> None:
    figure = figures.adaptation(summary({"maml": method("MAML", [{"loss": statistics(loss)} for loss in losses])}))
    assert figure.axes[0].get_yscale() == scale


def training(*told: Any, **seconds: Any) -> Figure:
    figure = figures.training(*told, **seconds)
    assert figure is not None
    return figure


def history(names: dict[str, list[float]]) -> pd.DataFrame:
    rows = [("maml", 10 * place, name, value) for name, values in names.items() for place, value in enumerate(values, 1)]
    return pd.DataFrame([*rows, ("random", 10, "validation_loss", 9.0)], columns=["phase", "iteration", "name", "value"])


def test_training_shows_the_curves_of_the_learned_parameters_and_where_evaluation_is() -> None:
    told = history({"meta_train_loss": [3.0, 2.0], "validation_loss": [4.0, 3.0], "loss": [9.0, 9.0]})
    figure = training(told, summary(three_methods()), 20, seconds=0.5)
    assert labels(figure) == ["meta-train tasks", "meta-validation tasks", "evaluation of the parameters kept"]
    assert line(figure, "meta-validation tasks") == ([10, 20], [4.0, 3.0])
    assert line(figure, "evaluation of the parameters kept") == ([20], pytest.approx([1 / 3]))
    (top,) = figure.axes[0].child_axes
    assert top.get_xlabel() == "seconds of training"


def test_training_is_by_the_metric_that_compares_methods_if_it_was_validated_by_it() -> None:
    methods = {"maml": method("MAML", [{"acc": statistics(0.5), "loss": statistics(1.0)}])}
    of_classes = summary(methods, metrics={"acc": ACCURACY, "loss": LOSS})
    by_accuracy = training(history({"validation_acc": [0.2, 0.4], "validation_loss": [4.0, 3.0]}), of_classes, 10, 0)
    assert line(by_accuracy, "meta-validation tasks")[1] == [0.2, 0.4]
    by_loss = training(history({"validation_loss": [4.0, 3.0]}), of_classes, 10, 0)
    assert line(by_loss, "meta-validation tasks")[1] == [4.0, 3.0]
    assert not by_loss.axes[0].child_axes  # no times are known


def test_losses_are_the_share_of_tasks_with_less_of_all_tasks() -> None:
    values = [4.0, 1.0, np.nan, 2.0]
    table = pd.DataFrame({"variant": "in-distribution", "method": "maml", "loss_2": values})
    far = table.assign(variant="far", loss_2=9.0)
    figure = figures.losses(pd.concat([table, far]), summary({"maml": three_methods()["maml"]}))
    assert line(figure, "MAML") == ([1.0, 2.0, 4.0], [0.25, 0.5, 0.75])  # one of the four has no finite loss


def with_shift(far: dict[str, Any]) -> Figure:
    return figures.shifted(summary(three_methods(), shifted={"far": variant(far, {"x": [5.0, 10.0]})}))


def test_shifted_tasks_are_below_those_as_trained_for_with_what_they_change_and_how_many_diverged() -> None:
    figure = with_shift(three_methods())
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["in-distribution", "far\nx 5 to 10"]
    low, high = axes.get_ylim()
    assert low > high  # the first is at the top
    assert [text.get_text() for text in axes.texts] == ["2 diverged"] * 6


def test_tasks_that_diverged_do_not_stretch_the_axis() -> None:
    near, far = three_methods(), three_methods()
    for before, after in zip(near.values(), far.values(), strict=True):
        before["steps"][2]["diverged"] = 0
        after["steps"][2] |= {"loss": statistics(1e30, median=1e30), "diverged": 4}
    figure = figures.shifted(summary(near, shifted={"far": variant(far, {"x": [5.0, 10.0]})}))
    assert figure.axes[0].get_xlim()[1] < 100


def test_calibration_shows_the_bins_of_each_method() -> None:
    bins = [{"confidence": 0.4, "accuracy": 0.5, "share": 0.25}, {"confidence": 0.9, "accuracy": 0.8, "share": 0.75}]
    methods = {"a": method("A", [{"loss": statistics(1.0)}], calibration=bins), "b": method("B", [{"loss": statistics(1.0)}])}
    figure = figures.calibration(summary(methods))
    assert labels(figure) == ["A", "B"]
    assert np.asarray(figure.axes[0].collections[0].get_offsets()).tolist() == [[0.4, 0.5], [0.9, 0.8]]


def test_a_figure_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        figures.save(figures.adaptation(summary(three_methods())), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def _overlapping_labels(figure: Figure) -> list[str]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    labels = [label for label in figure.axes[0].get_xticklabels() if label.get_text()]
    low, high = figure.axes[0].bbox.x0, figure.axes[0].bbox.x1
    boxes = sorted((label.get_window_extent().x0, label.get_window_extent().x1, label.get_text()) for label in labels)
    boxes = [box for box in boxes if low <= (box[0] + box[1]) / 2 <= high]
    return [second[2] for first, second in pairwise(boxes) if first[1] > second[0]]


@pytest.mark.parametrize("largest", [1.2, 6.0, 40.0, 900.0, 1e7])
def test_labels_of_the_axis_of_shifted_tasks_do_not_overlap(largest: float) -> None:
    far = three_methods()
    for each in far.values():
        each["steps"][2] |= {"loss": statistics(largest, median=largest), "diverged": 0}
    near = three_methods()
    for each in near.values():
        each["steps"][2]["diverged"] = 0
    figure = figures.shifted(summary(near, shifted={"far": variant(far, {"x": [5.0, 10.0]})}))
    assert _overlapping_labels(figure) == []


def test_results_of_diverged_tasks_alone_are_drawn() -> None:
    lost = {"a": method("A", [{"loss": statistics(None), "diverged": 4}] * 2)}
    made = summary(lost, shifted={"far": variant(lost, {"x": [5.0, 10.0]})})
    for figure in (figures.shifted(made), figures.adaptation(made)):
        figures.save(figure, io.BytesIO())


def test_a_training_that_was_validated_once_has_no_curve() -> None:
    made = summary({"maml": method("MAML", [{"loss": statistics(1.0)}])})
    history = pd.DataFrame([("maml", 5, "validation_loss", 0.5)], columns=["phase", "iteration", "name", "value"])
    assert figures.training(history, made, 5, 0.0) is None
