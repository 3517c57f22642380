"""What summary.json says, as metrics and as rows of a table: by whatever names it has for methods, measures and variants.

MLflow's page makes a section of what stands before a metric's last slash, with a chart for each metric in it, and sorts sections by
name. So a section holds one quantity of all methods, `logged_model` comes first and `wall_time` last; what would make too many
charts (spread, step sizes of the baselines) is left to the table. `runs.curve_name` names the curves over iterations.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from metaopt_core.evaluation.verdict import difference
from metaopt_core.spec.evaluate import IN_DISTRIBUTION

_SPREAD = ("ci95", "median", "worst")  # of what a measure's statistics hold, beside the mean


class Number(NamedTuple):
    """One number of a metric; step: adaptation steps."""

    name: str
    step: int
    value: float


def curves(summary: Mapping[str, Any]) -> list[Number]:
    """Every method after each number of adaptation steps: `meta_test/loss/reptile`; of shifted tasks `shifted/louder/loss/reptile`,
    without the counts of tasks.
    """
    found = list(_curves("meta_test", summary, counts=True))
    for name, variant in summary["shifted"].items():
        found += _curves(f"shifted/{name}", variant, counts=False)
    return found


def by_shots(summary: Mapping[str, Any]) -> list[Number]:
    """Every method with each number of support examples, which is the step: `meta_test_by_shots/loss/reptile`."""
    return [
        Number(f"meta_test_by_shots/{name}/{method}", entry["shots"], value)
        for entry in summary.get("by_shots", ())
        for method, results in entry["methods"].items()
        for name, value in _finite(_means(results) | _plain(results)).items()
    ]


def _curves(prefix: str, variant: Mapping[str, Any], counts: bool) -> Iterator[Number]:
    for method, results in variant["methods"].items():
        for entry in entries(results):
            values = _means(entry) | ({f"tasks_{name}": value for name, value in _plain(entry).items()} if counts else {})
            for name, value in _finite(values).items():
                yield Number(f"{prefix}/{name}/{method}", entry["step"], value)


def at_horizon(summary: Mapping[str, Any]) -> list[Number]:
    """The numbers after as many steps as the model is used with: `logged_model/test_loss`, and with less detail
    `shifted_logged_model/louder_loss`.
    """
    variants = {"logged_model/test": summary}
    variants |= {f"shifted_logged_model/{name}": variant for name, variant in summary["shifted"].items()}
    found = []
    for prefix, variant in variants.items():
        results = variant["methods"][summary["model"]]
        entry = results["steps"][summary["horizon"]]
        detailed = variant is summary
        values = _plain(entry) | _means(entry) | (_once(results) if detailed else {})
        for name, statistics in _measures(entry).items():
            values |= {f"{name}_{key}": statistics.get(key) for key in (_SPREAD if detailed else ("ci95",))}
        found += [Number(f"{prefix}_{name}", 0, value) for name, value in _finite(values).items()]
    return found


def differences(summary: Mapping[str, Any]) -> list[Number]:
    """The model's paired differences from the other methods: `meta_test_difference/loss/random`, `…/random_ci95`."""
    found, model = [], summary["model"]
    for pair in summary["differences"]:
        if model not in (pair["of"], pair["against"]):
            continue
        other = pair["against"] if pair["of"] == model else pair["of"]
        for name in _measures(pair):
            paired = difference(summary, model, other, name) or {}
            values = {other: paired.get("mean"), f"{other}_ci95": paired.get("ci95")}
            found += [Number(f"meta_test_difference/{name}/{key}", 0, value) for key, value in _finite(values).items()]
    return found


def rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """summary.json as flat rows, one a variant, method and number of steps."""
    found = []
    for variant, tested in {IN_DISTRIBUTION: summary, **summary["shifted"]}.items():
        for results in tested["methods"].values():
            for entry in entries(results):
                row = {"variant": variant, "method": results["label"], "steps": entry["step"], "inner_lr": results["inner_lr"]}
                row |= _plain(entry)
                for name, statistics in _measures(entry).items():
                    row |= {f"{name}_{key}": value for key, value in statistics.items()}
                found.append(row)
    return found


def rows_by_shots(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same with each number of support examples, one a number and method."""
    found = []
    for entry in summary.get("by_shots", ()):
        for method, results in entry["methods"].items():
            row = {"shots": entry["shots"], "method": summary["methods"][method]["label"], "tasks": entry["tasks"]}
            row |= _plain(results)
            for name, statistics in _measures(results).items():
                row |= {f"{name}_{key}": value for key, value in statistics.items()}
            found.append(row)
    return found


def entries(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One method after each number of steps, or once if it takes none."""
    found: list[dict[str, Any]] = results["steps"]
    return found if results["takes_steps"] else found[:1]


def _measures(entry: Mapping[str, Any]) -> dict[str, Mapping[str, float | None]]:
    """The statistics in an entry, by the names of what was measured."""
    return {name: value for name, value in entry.items() if isinstance(value, Mapping) and "mean" in value}


def _means(entry: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: statistics["mean"] for name, statistics in _measures(entry).items()}


def _plain(entry: Mapping[str, Any]) -> dict[str, float | None]:
    """The entry's own numbers, such as how many tasks diverged."""
    return {name: value for name, value in entry.items() if name != "step" and isinstance(value, int | float)}


def _once(results: Mapping[str, Any]) -> dict[str, float | None]:
    """What a method has a single number of: the step size, pooled metrics, the means of queries normalized otherwise."""
    values = {"inner_lr": results.get("inner_lr")} | (results.get("pooled") or {})
    for kind in ("inductive", "collected"):
        for name, statistics in _measures(results.get(kind) or {}).items():
            values |= {f"{kind}_{name}": statistics["mean"], f"{kind}_{name}_ci95": statistics.get("ci95")}
    return values


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    """The finite ones: for others MLflow would show a number in their place."""
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
