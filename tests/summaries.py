"""Summaries as `evaluate` writes them (summary.json), made by hand: any methods and metrics, without any training."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from metaopt_core.evaluation.verdict import note_changes

LOSS = {"title": "mean squared error", "about": "", "larger_is_better": False, "form": "number", "unit": "", "pooled": False}
ACCURACY = LOSS | {"title": "accuracy", "larger_is_better": True, "form": "percent"}


def statistics(mean: float | None, half: float | None = 0.1, median: float = 0.9, worst: float = 2.0) -> dict[str, float | None]:
    half = None if mean is None else half
    return {"mean": mean, "ci95": half, "median": median, "q05": 0.1, "q25": 0.5, "q75": 1.5, "q95": 2.0, "worst": worst}


def method(label: str, steps: Sequence[Mapping[str, Any]], **values: Any) -> dict[str, Any]:
    """steps: metric → statistics after each number of steps, with `diverged` and `improved` where they are not 0 and 0.5."""
    entries = [{"step": step, "diverged": 0, "improved": 0.5, **entry} for step, entry in enumerate(steps)]
    made = {"label": label, "about": "", "color": "tab:blue", "line": "o-", "baseline": False, "takes_steps": True}
    made |= {"inner_lr": 0.01, "inductive": None, "collected": None, "pooled": {}, "calibration": None}
    return made | {"steps": entries} | values


def summary(methods: Mapping[str, dict[str, Any]], **values: Any) -> dict[str, Any]:
    """The first method is the logged model; differences are of means, with an interval of 0.1 to both sides."""
    names = list(methods)
    metrics = values.get("metrics", {"loss": LOSS})
    horizon = len(methods[names[0]]["steps"]) - 1
    per_task = [name for name, read in metrics.items() if not read["pooled"]]

    def minus(one: str, other: str, metric: str) -> dict[str, float | bool | None]:
        first, second = (methods[name]["steps"][horizon][metric]["mean"] for name in (one, other))
        known = first is not None and second is not None
        mean = first - second if known else None
        return {"mean": mean, "ci95": 0.1 if known else None, "survives": mean is not None and abs(mean) > 0.1}

    made: dict[str, Any] = {
        "targets": "real",
        "metrics": metrics,
        "primary": next(iter(metrics)),
        "normalization": None,
        "reduction": "mean",
        "tasks": 4,
        "groups": None,
        "ways": None,
        "shots": 5,
        "queries": 5,
        "inner_lr": 0.01,
        "learned_lr": None,
        "baseline_lrs": [0.003, 0.01, 0.03],
        "horizon": horizon,
        "algorithm": "MAML",
        "learned": names[0],
        "model": names[0],
        "methods": methods,
        "differences": [
            {"of": one, "against": other, "better": 0.75} | {metric: minus(one, other, metric) for metric in per_task}
            for one, other in combinations(names, 2)
        ],
        "shifted": {},
    }
    made |= values
    for variant in made["shifted"].values():
        note_changes(made, variant)
    return made


def variant(methods: Mapping[str, dict[str, Any]], changes: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """Shifted test tasks, for `summary(shifted=...)`."""
    made = summary(methods, **values)
    del made["shifted"]
    return made | {"changes": dict(changes)}


def three_methods(steps: int = 2) -> dict[str, dict[str, Any]]:
    """MAML, and two baselines that are worse: the loss after each number of steps is 1 over one more than that."""
    made = {}
    for place, (name, label) in enumerate({"maml": "MAML", "pretrained": "pre-trained", "random": "random init"}.items()):
        losses = [{"loss": statistics(0.25 * place + 1 / (step + 1)), "diverged": step} for step in range(steps + 1)]
        made[name] = method(label, losses, baseline=place > 0)
    return made
