"""Figures of results that are not as usual: they are drawn, and their axes can be read."""

import io
from itertools import pairwise

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metaopt_core.reporting import figures
from tests.summaries import ACCURACY, LOSS, method, statistics, summary, three_methods, variant


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


def test_a_curve_follows_the_metric_that_methods_are_compared_by_if_training_has_it() -> None:
    entry = {"accuracy": statistics(0.5), "loss": statistics(1.0)}
    made = summary({"maml": method("MAML", [entry])}, metrics={"accuracy": ACCURACY, "loss": LOSS})
    points = [("maml", at, f"{split}_{name}", 0.5) for at in (1, 2) for split in ("validation", "meta_train") for name in entry]
    history = pd.DataFrame(points, columns=["phase", "iteration", "name", "value"])
    without = history[~history["name"].str.endswith("accuracy")]
    for curves, label in ((history, "accuracy after adaptation"), (without, "mean squared error after adaptation")):
        figure = figures.training(curves, made, 2, 0.0)
        assert figure
        assert figure.axes[0].get_ylabel() == label


def test_a_training_that_was_validated_once_has_no_curve() -> None:
    made = summary({"maml": method("MAML", [{"loss": statistics(1.0)}])})
    history = pd.DataFrame([("maml", 5, "validation_loss", 0.5)], columns=["phase", "iteration", "name", "value"])
    assert figures.training(history, made, 5, 0.0) is None
