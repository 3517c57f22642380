"""What summary.json of the evaluate stage says, read in one way by all who tell of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from metaopt_core.spec.evaluate import IN_DISTRIBUTION

if TYPE_CHECKING:
    import pandas as pd  # takes a second, and what the command line needs here doesn't need it

Summary = Mapping[str, Any]


class Measure:
    """How numbers of a metric are read and written: of the one that methods are compared by, or of another."""

    def __init__(self, summary: Summary, key: str | None = None):
        self.key: str = key or summary["primary"]
        read = summary["metrics"][self.key]
        self.name: str = read["title"]
        self.larger_is_better: bool = read["larger_is_better"]
        self.percent: bool = read["form"] == "percent"

    def value(self, number: float | None) -> str:
        if number is None:
            return "–"
        return f"{number:.1%}".replace("%", " %") if self.percent else f"{number:.3f}"

    def difference(self, number: float | None) -> str:
        """With its sign; of shares in percentage points."""
        if number is None:
            return "–"
        return f"{100 * number:+.1f}".replace("-", "−") if self.percent else f"{number:+.3f}".replace("-", "−")


def counted(number: int, what: str) -> str:
    """As in "1 step" and "2 steps"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def at_horizon(summary: Summary, method: str) -> dict[str, Any]:
    """A method's statistics after as many steps as the model is used with."""
    entry: dict[str, Any] = summary["methods"][method]["steps"][summary["horizon"]]
    return entry


def best_baseline(summary: Summary) -> str | None:
    """The baseline with the best mean at the horizon; none where no mean is finite."""
    measure = Measure(summary)
    baselines: list[str] = [name for name, method in summary["methods"].items() if method["baseline"]]
    means = {name: at_horizon(summary, name)[measure.key]["mean"] for name in baselines}
    finite = {name: mean for name, mean in means.items() if mean is not None}
    if not finite:
        return None
    return max(finite, key=lambda name: finite[name] if measure.larger_is_better else -finite[name])


def difference(summary: Summary, of: str, against: str, key: str) -> dict[str, float | None] | None:
    """The paired difference of two methods, in whichever order it is recorded; none where there is none."""
    for found in summary["differences"]:
        if {found["of"], found["against"]} == {of, against}:
            values: dict[str, float | None] = dict(found[key])
            if values["mean"] is not None and found["of"] != of:
                values["mean"] *= -1
            return values
    return None


def worst_tasks(summary: Summary, table: "pd.DataFrame", count: int) -> list[int]:
    """The tasks as trained for in which the method of the logged model has the largest losses at the horizon, the worst first."""
    rows = table[(table["method"] == summary["model"]) & (table["variant"] == IN_DISTRIBUTION)]
    losses = rows[f"loss_{summary['horizon']}"].fillna(np.inf).to_numpy(np.float64)
    return [int(task) for task in rows["task"].to_numpy()[np.argsort(-losses, kind="stable")[:count]]]
