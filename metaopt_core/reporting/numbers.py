"""The formatting of numbers, shared by the terminal, Markdown, the report and figures."""

import math
from collections.abc import Mapping
from typing import Any

from metaopt_core.evaluation.verdict import Statistics, Summary, at_horizon, variants

NONE = "–"
NOT_FINITE = "not finite"
"""Replaces the mean of tasks some of which diverged."""

SURVIVES = "*"
"""Marks a difference that survives the correction for the number of comparisons."""

_DECIMALS = 3
_MANY_DECIMALS = 5
_GROUPED = 1e3  # from here on with thousands separators and without decimals
_HUGE = 1e6  # from here on with an exponent: diverging adaptation yields numbers of any size
_FACTOR = 10.0  # from here on a change is written as a factor


class Reading:
    """The formatting of one metric's numbers: the one by which methods are compared, or another.

    All numbers of a summary have the same decimals, so that they can be compared at a glance.
    """

    def __init__(self, summary: Summary, name: str | None = None):
        self.name: str = name or summary["primary"]
        described = summary["metrics"][self.name]
        self.title: str = described["title"]
        self.larger_is_better: bool = described["larger_is_better"]
        self.percent: bool = described["form"] == "percent"
        self.unit: str = described["unit"]
        self.pooled: bool = described["pooled"]
        self._decimals = _decimals(_shown(summary, self.name, self.pooled))

    @property
    def heading(self) -> str:
        """The title with the unit: `Cross-entropy (nats)`."""
        title = self.title[:1].upper() + self.title[1:]
        return f"{title} ({self.unit})" if self.unit else title

    def value(self, number: float | None) -> str:
        if number is None or not math.isfinite(number):
            return NOT_FINITE
        return f"{number:.1%}" if self.percent else self._plain(number)

    def interval(self, statistics: Statistics) -> str:
        """Mean ± half the width of its 95 % interval."""
        half = statistics["ci95"]
        return self.value(statistics["mean"]) + ("" if half is None else f" ± {self.value(half)}")

    def difference(self, statistics: Statistics | None) -> str:
        """A signed difference; of shares in percentage points."""
        if statistics is None or statistics["mean"] is None:
            return NONE
        mean, half = statistics["mean"], statistics["ci95"]
        sign = "−" if mean < 0 else "+"
        return sign + self._points(abs(mean)) + ("" if half is None else f" ± {self._points(half)}")

    def of_differences(self, comparisons: int | None = None) -> str:
        """A caption's note on differences. comparisons: their number."""
        number = "the number of comparisons" if comparisons is None else counted(comparisons, "comparison")
        said = f"{SURVIVES}: differs from 0 also when corrected for {number} (Holm)"
        return ("differences in percentage points; " if self.percent else "") + said

    def _points(self, number: float) -> str:
        return f"{100 * number:.1f}" if self.percent else self._plain(number)

    def _plain(self, number: float) -> str:
        if abs(number) >= _HUGE:
            return f"{number:.1e}"
        text = f"{number:,.0f}" if abs(number) >= _GROUPED else f"{number:.{self._decimals}f}"
        return text.replace("-", "−" if float(text.replace(",", "")) else "")


def _shown(summary: Summary, name: str, pooled: bool) -> list[float]:
    """The magnitudes of a metric's numbers at the horizon."""
    found = []
    for variant in variants(summary).values():
        for method, results in variant["methods"].items():
            number = results["pooled"].get(name) if pooled else at_horizon(variant, method)[name]["mean"]
            found += [abs(number)] if number else []
    return found


def _decimals(sizes: list[float]) -> int:
    """Three decimals, or as many as the smallest number needs for two digits, unless that makes the largest one too long."""
    if not sizes:
        return _DECIMALS
    of_smallest, of_largest = (1 - math.floor(math.log10(size)) for size in (min(sizes), max(sizes)))
    return max(_DECIMALS, min(of_smallest, max(_MANY_DECIMALS, of_largest + 1)))


def change(fraction: float | None) -> str:
    """By how much a number is above or below another: `+55%`, or `×12`."""
    if fraction is None:
        return ""
    if fraction < _FACTOR:
        return f"{100 * fraction:+.0f}%".replace("-", "−")
    factor = fraction + 1
    return f"×{factor:,.0f}" if factor < _HUGE else f"×{factor:.0e}"


def counted(number: int, word: str) -> str:
    """`1 step`, `2 steps`, `3 queries`, `1,000 tasks`."""
    several = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{number:,} {word if number == 1 else several}"


def seconds(number: float) -> str:
    if number < 10:
        return f"{number:.1f} s"
    if number < 120:
        return f"{number:.0f} s"
    minutes, rest = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def settings(values: Mapping[str, Any]) -> str:
    """Values of a spec in words: `amplitude 5 to 10, noise 0.5`. What is not set is left out."""
    return ", ".join(f"{key.replace('_', ' ')} {_setting(value)}" for key, value in _flat(values).items() if value is not None)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key} ") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _setting(value: Any) -> str:
    if isinstance(value, list):  # two real numbers are bounds; whole numbers are sizes of layers
        return (" to " if all(isinstance(part, float) for part in value) else ", ").join(_number(part) for part in value)
    return _number(value)


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
