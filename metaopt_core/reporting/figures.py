"""Figures, as matplotlib objects of their own: no global state, so nothing to close and no window ever opens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metaopt_core.evaluation.summary import Measure, counted
from metaopt_core.spec.evaluate import IN_DISTRIBUTION

_TASKS_SHOWN = 4
_CHARACTERS_SHOWN = 8  # of a split
_DRAWINGS_SHOWN = 10  # of a character
_GAP = 3  # pixels between pictures

_WIDE = 100  # times the median: from there on a scale is logarithmic


def save(figure: Figure, path: Path) -> None:
    """Write a PNG whose bytes depend on the figure alone."""
    figure.savefig(path, dpi=110, metadata={"Software": None})


def adaptation(summary: Mapping[str, Any]) -> Figure:
    """The mean over meta-test tasks after each number of steps, with its 95 % interval."""
    measure = Measure(summary)
    key, label = measure.key, measure.name
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for result in summary["methods"].values():
        if not result["line"]:
            continue
        points = [point for point in result["steps"] if point[key]["mean"] is not None]
        steps = [point["step"] for point in points]
        mean = [point[key]["mean"] for point in points]
        half = [point[key]["ci95"] or 0.0 for point in points]
        low, high = [m - h for m, h in zip(mean, half, strict=True)], [m + h for m, h in zip(mean, half, strict=True)]
        axes.plot(steps, mean, result["line"], color=result["color"], label=result["label"], markersize=3.5)
        axes.fill_between(steps, low, high, color=result["color"], alpha=0.2, linewidth=0)
    shape = f"{summary['ways']}-way {summary['shots']}-shot" if summary["ways"] else f"K = {summary['shots']}"
    normalization = f", {summary['normalization']}" if summary["normalization"] else ""
    axes.axvline(summary["horizon"], color="black", linewidth=0.8, linestyle=":")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(
        title=f"Adaptation to {summary['tasks']} new tasks, mean and 95 % interval\n{shape}{normalization}",
        xlabel="adaptation steps (dotted: where methods are compared)",
        ylabel=label,
    )
    axes.title.set_fontsize(9.5)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def training(history: pd.DataFrame, summary: Mapping[str, Any], best_iteration: int, seconds: float) -> Figure:
    """Loss or accuracy after adaptation over training, on meta-train, meta-validation and meta-test tasks, and at the end what
    evaluation found.

    seconds: what an iteration took; none are drawn where that is 0.
    """
    learned, measure = summary["learned"], _curve(summary)
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    curves = history[history["phase"] == learned]
    for name, label, color in (
        (f"meta_train_{measure}", "meta-train tasks", "tab:gray"),
        (f"validation_{measure}", "meta-validation tasks", "tab:blue"),
        (f"meta_test_{measure}", "meta-test tasks", "tab:red"),
    ):
        curve = curves[curves["name"] == name]
        axes.plot(curve["iteration"], curve["value"], "o-", markersize=3, label=label, color=color)
    test = summary["methods"][learned]["steps"][summary["horizon"]][measure]["mean"]
    if test is not None:
        axes.plot([best_iteration], [test], "*", markersize=13, color="tab:red", label="evaluation of the parameters kept")
    shown = curves.loc[curves["name"].isin([f"meta_train_{measure}", f"validation_{measure}"]), "value"]
    if shown.max() > _WIDE * shown.median():  # a few tasks that diverged in one validation would flatten all the rest
        axes.set_yscale("log")
    axes.axvline(best_iteration, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="iteration (dotted: the parameters that were kept)", ylabel=f"{measure} after adaptation")
    if seconds:
        minutes = seconds / 60
        there, back = (lambda iteration: np.multiply(iteration, minutes)), (lambda minute: np.divide(minute, minutes))
        top = axes.secondary_xaxis("top", functions=(there, back))
        top.set_xlabel("minutes of training")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def _curve(summary: Mapping[str, Any]) -> str:
    """The metric of training's own curves: the primary one where training has it, else the loss."""
    return "accuracy" if summary["primary"] == "accuracy" else "loss"


def calibration(summary: Mapping[str, Any]) -> Figure:
    """Share of right answers by the probability that was given to them, of each method, at the horizon."""
    figure = Figure(figsize=(4.6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    for result in summary["methods"].values():
        bins, ece = result["calibration"], result["pooled"]["calibration_error"]
        x, y = [part["confidence"] for part in bins], [part["accuracy"] for part in bins]
        axes.plot(x, y, color=result["color"], linewidth=0.8)
        size = [4 + 120 * part["share"] for part in bins]
        axes.scatter(x, y, s=size, color=result["color"], label=f"{result['label']}: error {ece:.1%}", alpha=0.8)
    axes.set(xlabel="probability given to the answer", ylabel="share of answers that are right", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return figure


def losses(table: pd.DataFrame, summary: Mapping[str, Any]) -> Figure:
    """How the loss at the horizon spreads over the meta-test tasks: the share of tasks with at most that loss, of each method."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    table = table[table["variant"] == IN_DISTRIBUTION]
    for method, result in summary["methods"].items():
        values = table.loc[table["method"] == method, f"loss_{summary['horizon']}"].to_numpy(np.float64)
        ordered = np.sort(values[np.isfinite(values)])
        share = np.arange(1, len(ordered) + 1) / len(values)
        style = ":" if result["line"].endswith(":") else "-"
        axes.plot(np.maximum(ordered, 1e-6), share, style, color=result["color"], label=result["label"])
    axes.axhline(0.9, color="black", linewidth=0.8, linestyle=":")
    label = f"loss of a task after {counted(summary['horizon'], 'step')} (above the dotted line: the 10 % worst)"
    axes.set(xscale="log", ylim=(0, 1.01), xlabel=label, ylabel="share of tasks with less")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def shifted(summary: Mapping[str, Any]) -> Figure:
    """Mean, its 95 % interval and median where methods are compared: the test tasks as trained for, and below them each variant."""
    measure = Measure(summary)
    key, label = measure.key, measure.name
    variants = {IN_DISTRIBUTION: summary, **summary["shifted"]}
    count = len(summary["methods"])
    figure = Figure(figsize=(7.5, 1.4 + 0.2 * count * len(variants)), layout="constrained")
    axes = figure.subplots()
    within: list[float] = []  # what the axis shows: where tasks diverged, means and even medians may lie far beyond it
    for place, (method, result) in enumerate(summary["methods"].items()):
        last = [variant["methods"][method]["steps"][summary["horizon"]] for variant in variants.values()]
        rows = np.arange(len(last)) + 0.66 / count * (place - (count - 1) / 2)
        mean, half, median = (
            np.array([entry[key][name] for entry in last], dtype=np.float64) for name in ("mean", "ci95", "median")
        )
        color = result["color"]
        axes.errorbar(mean, rows, xerr=half, fmt="o", color=color, label=result["label"], markersize=4, capsize=2)
        axes.plot(median, rows, "o", color=color, fillstyle="none", markersize=4)
        axes.axvline(mean[0], color=color, linewidth=0.8, linestyle=":")
        for row, entry in zip(rows, last, strict=True):
            if entry["diverged"]:
                right = axes.get_yaxis_transform()
                axes.text(1.01, row, f"{entry['diverged']} diverged", transform=right, fontsize=7, va="center", color=color)
        diverged = np.array([entry["diverged"] for entry in last])
        within += [*median[2 * diverged < summary["tasks"]], *mean[diverged == 0]]
    axes.plot([], [], "ko", fillstyle="none", markersize=4, label="median")
    axes.set_yticks(range(len(variants)), [_named(name, variant) for name, variant in variants.items()], fontsize=8)
    axes.invert_yaxis()
    axes.axhline(0.5, color="black", linewidth=0.8)
    if not measure.percent:
        axes.set_xscale("log")
        axes.set_xlim(0.5 * np.nanmin(within), 2 * np.nanmax(within))
    else:
        axes.set_xlim(0, 1.02)
    axes.set_title(
        f"Shifted test tasks after {counted(summary['horizon'], 'adaptation step')}: mean, 95 % interval, median", fontsize=9.5
    )
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def _named(name: str, variant: Mapping[str, Any]) -> str:
    """A variant's name over what it changes."""
    changes = variant.get("changes", {})
    return f"{name}\n{', '.join(f'{key} {_said(value)}' for key, value in changes.items())}" if changes else name


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return " + ".join(name for name, weight in value.items() if weight)
    return f"{value[0]:.3g} to {value[1]:.3g}" if isinstance(value, list) else str(value)
