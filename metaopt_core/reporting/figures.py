"""Figures, as matplotlib objects without pyplot's global state, so nothing has to be closed and no window opens."""

from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from metaopt_core.evaluation.statistics import one_a_task
from metaopt_core.evaluation.verdict import Summary, at_horizon, variants
from metaopt_core.reporting.numbers import Reading, counted, settings
from metaopt_core.spec.evaluate import IN_DISTRIBUTION
from metaopt_core.spec.metric import LOSS

_LOGARITHMIC = 3.0  # times the smallest: beyond that the axis of shifted tasks is logarithmic
_WIDE = 100  # times the median: beyond that the scale of curves is logarithmic


def save(figure: Figure, target: Path | IO[bytes]) -> None:
    """Write a PNG whose bytes depend only on the figure."""
    figure.savefig(target, dpi=110, metadata={"Software": None}, format="png")


def adaptation(summary: Summary) -> Figure:
    """The mean over meta-test tasks after each number of steps, with its 95% interval."""
    reading = Reading(summary)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    shown: list[float] = []
    for result in summary["methods"].values():
        if not result["line"]:
            continue
        points = [point for point in result["steps"] if point[reading.name]["mean"] is not None]
        steps = [point["step"] for point in points]
        mean = [point[reading.name]["mean"] for point in points]
        half = [point[reading.name]["ci95"] or 0.0 for point in points]
        shown += mean
        low, high = [m - h for m, h in zip(mean, half, strict=True)], [m + h for m, h in zip(mean, half, strict=True)]
        axes.plot(steps, mean, result["line"], color=result["color"], label=result["label"], markersize=3.5)
        axes.fill_between(steps, low, high, color=result["color"], alpha=0.2, linewidth=0)
    shape = f"{summary['ways']}-way {summary['shots']}-shot" if summary["ways"] else f"K = {summary['shots']}"
    normalization = f", {summary['normalization']}" if summary["normalization"] else ""
    axes.axvline(summary["horizon"], color="black", linewidth=0.8, linestyle=":")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(
        title=f"Adaptation to {summary['tasks']} new tasks, mean and 95% interval\n{shape}{normalization}",
        xlabel="adaptation steps (dotted: where methods are compared)",
        ylabel=reading.heading,
    )
    axes.title.set_fontsize(9.5)
    _ordinate(axes, reading, np.array(shown))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def by_shots(summary: Summary) -> Figure:
    """Each method's mean by the number of support examples, with its 95% interval: those that are not baselines, the best of the
    baselines and the reference; the other baselines in grey."""
    reading, entries = Reading(summary), summary["by_shots"]
    shown = _most_interesting(summary)
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    shots, within = [entry["shots"] for entry in entries], []
    for name, result in summary["methods"].items():
        each = [entry["methods"][name][reading.name] for entry in entries]
        mean, half = (np.array([values[key] for values in each], np.float64) for key in ("mean", "ci95"))
        if name not in shown:
            axes.plot(shots, mean, color="lightgray", linewidth=0.8, zorder=1)
            continue
        axes.plot(
            shots, mean, "o-" if not result["baseline"] else "s--", color=result["color"], label=result["label"], markersize=4
        )
        axes.fill_between(shots, mean - half, mean + half, color=result["color"], alpha=0.15, linewidth=0)
        within += [*mean[np.isfinite(mean)]]
    if len(shown) < len(summary["methods"]):
        axes.plot([], [], color="lightgray", linewidth=0.8, label="other baselines")
    if within:
        margin = 0.15 * (max(within) - min(within)) or 1.0
        axes.set_ylim(min(within) - margin, max(within) + margin)
    if reading.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xscale("log")
    axes.set_xticks(shots, [str(number) for number in shots])
    axes.xaxis.set_minor_formatter(NullFormatter())
    of = "support examples of each class" if summary["ways"] else "support examples of a task"
    axes.set(xlabel=of, ylabel=reading.heading)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


_BASELINES_DRAWN = 4


def _most_interesting(summary: Summary) -> set[str]:
    """The methods that are not baselines, the best baselines over all numbers of support examples, and the reference."""
    name, over = summary["primary"], summary["over_shots"]["methods"]
    sign = -1.0 if summary["metrics"][name]["larger_is_better"] else 1.0
    known = {method: sign * values[name]["mean"] for method, values in over.items() if values[name]["mean"] is not None}
    baselines = sorted((method for method in known if summary["methods"][method]["baseline"]), key=lambda method: known[method])
    others = {method for method, result in summary["methods"].items() if not result["baseline"] or result.get("reference")}
    return others | set(baselines[:_BASELINES_DRAWN])


def _ordinate(axes: Axes, reading: Reading, shown: npt.NDArray[np.float64]) -> None:
    """Fit the vertical axis to these numbers: from 0, unless some are negative or a few would flatten the rest."""
    if reading.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if shown.size and shown.min() > 0 and shown.max() > _WIDE * np.median(shown):
        axes.set_yscale("log")
    elif not shown.size or shown.min() >= 0:
        axes.set_ylim(bottom=0)


def training(history: pd.DataFrame, summary: Summary, best_iteration: int, seconds: float) -> Figure | None:
    """A metric after adaptation over training, on meta-train and meta-validation tasks, and what evaluation found at the end.

    None if there is no curve, because there was only one validation. seconds: of an iteration; 0 leaves out the axis of time.
    """
    learned = summary["learned"]
    curves = history[history["phase"] == learned]
    validated = set(curves["name"])
    # the metric that methods are compared by, if training has validated by it
    reading = Reading(summary, summary["primary"] if f"validation_{summary['primary']}" in validated else LOSS)
    if (curves["name"] == f"validation_{reading.name}").sum() < 2:
        return None
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, label, color in (
        (f"meta_train_{reading.name}", "meta-train tasks", "tab:gray"),
        (f"validation_{reading.name}", "meta-validation tasks", "tab:blue"),
        (f"meta_test_{reading.name}", "meta-test tasks", "tab:red"),
    ):
        if name in validated:
            curve = curves[curves["name"] == name]
            axes.plot(curve["iteration"], curve["value"], "o-", markersize=3, label=label, color=color)
    test = at_horizon(summary, learned)[reading.name]["mean"]
    if test is not None:
        axes.plot([best_iteration], [test], "*", markersize=13, color="tab:red", label="evaluation of the parameters kept")
    values = curves.loc[curves["name"].isin([f"meta_train_{reading.name}", f"validation_{reading.name}"]), "value"].tolist()
    _ordinate(axes, reading, np.array([*values, *([] if test is None else [test])]))
    axes.axvline(best_iteration, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlim(left=0)
    axes.margins(y=0.1)
    axes.set(xlabel="iteration (dotted: the parameters that were kept)", ylabel=f"{reading.title} after adaptation")
    if seconds:
        unit, each = ("minutes", seconds / 60) if seconds * curves["iteration"].max() > 120 else ("seconds", seconds)
        there, back = (lambda iteration: np.multiply(iteration, each)), (lambda time: np.divide(time, each))
        top = axes.secondary_xaxis("top", functions=(there, back))
        top.set_xlabel(f"{unit} of training")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def calibration(summary: Summary) -> Figure:
    """Share of right answers by the probability given to them, for each method, at the horizon."""
    figure = Figure(figsize=(4.6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    for result in summary["methods"].values():
        bins = result["calibration"] or ()
        x, y = [part["confidence"] for part in bins], [part["accuracy"] for part in bins]
        axes.plot(x, y, color=result["color"], linewidth=0.8)
        size = [4 + 120 * part["share"] for part in bins]
        axes.scatter(x, y, s=size, color=result["color"], label=result["label"], alpha=0.8)
    axes.set(xlabel="probability given to the answer", ylabel="share of answers that are right", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return figure


def losses(table: pd.DataFrame, summary: Summary) -> Figure:
    """The loss at the horizon over the meta-test tasks: for each method, the share of tasks with at most that loss."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    table = one_a_task(table[table["variant"] == IN_DISTRIBUTION])
    for method, result in summary["methods"].items():
        values = table.loc[table["method"] == method, f"{LOSS}_{summary['horizon']}"].to_numpy(np.float64)
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


def shifted(summary: Summary) -> Figure:
    """Mean, 95% interval and median at the horizon: the unshifted test tasks, and below them each variant."""
    reading, shown = Reading(summary), variants(summary)
    count = len(summary["methods"])
    figure = Figure(figsize=(7.5, 1.4 + 0.2 * count * len(shown)), layout="constrained")
    axes = figure.subplots()
    within: list[float] = []  # what the axis shows: if tasks diverged, means and even medians may be far beyond it
    for place, (method, result) in enumerate(summary["methods"].items()):
        last = [at_horizon(variant, method) for variant in shown.values()]
        rows = np.arange(len(last)) + 0.66 / count * (place - (count - 1) / 2)
        mean, half, median = (
            np.array([entry[reading.name][name] for entry in last], dtype=np.float64) for name in ("mean", "ci95", "median")
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
    axes.set_yticks(range(len(shown)), [_named(name, variant) for name, variant in shown.items()], fontsize=8)
    axes.invert_yaxis()
    axes.axhline(0.5, color="black", linewidth=0.8)
    _scale(axes, reading, np.array(within))
    axes.set_title(
        f"Shifted test tasks after {counted(summary['horizon'], 'adaptation step')}: mean, 95% interval, median", fontsize=9.5
    )
    axes.set_xlabel(reading.heading)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def _scale(axes: Axes, reading: Reading, within: npt.NDArray[np.float64]) -> None:
    """Fit the horizontal axis to these numbers: shares from 0 to 1; a logarithmic scale for numbers that span decades."""
    within = within[np.isfinite(within)]
    if not within.size:  # tasks diverged in every row
        return
    low, high = float(within.min()), float(within.max())
    if reading.percent:
        axes.set_xlim(min(0.0, low), max(1.02, 1.05 * high))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    elif low > 0 and high > _LOGARITHMIC * low:
        axes.set_xscale("log")
        axes.set_xlim(0.5 * low, 2 * high)
        subs = (1.0,) if high > 100 * low else (1.0, 2.0, 5.0)  # as many ticks as there is room for
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        margin = 0.05 * (high - low) or 1.0
        axes.set_xlim(min(0.0, low - margin), max(0.0, high + margin))


def _named(name: str, variant: Summary) -> str:
    """A variant's name over what it changes."""
    changes = settings(variant.get("changes", {}))
    return f"{name}\n{changes}" if changes else name
