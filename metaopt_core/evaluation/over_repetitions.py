"""Results of a pipeline over several seeds or splits, with intervals over them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from metaopt_core.evaluation.recommendation import recommend
from metaopt_core.evaluation.statistics import mean, note_survivors, paired
from metaopt_core.evaluation.verdict import note_changes


def summarize(summaries: Sequence[Mapping[str, Any]], kind: Literal["seed", "split"]) -> dict[str, Any]:
    """Like `summary.summarize`, for several repetitions.

    For means it gives the mean over the repetitions and half the width of its 95 % interval; for everything else the mean over
    them, null if one has none, or the sum of diverged tasks. A step size is given if all have the same. kind: what differs.
    """
    found = _summary(summaries, kind)
    shifted = {name: _summary([summary["shifted"][name] for summary in summaries], kind) for name in summaries[0]["shifted"]}
    for variant in shifted.values():
        note_changes(found, variant)
    note_survivors(found, shifted)
    found |= {"shifted": shifted} | _by_shots(summaries)
    for own in ("chosen", "task_names"):  # of each repetition
        found.pop(own, None)
    return found | {"recommendation": recommend(found)} if found.get("by_shots") else found


def _summary(summaries: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    first = summaries[0]
    methods = {name: _method([summary["methods"][name] for summary in summaries]) for name in first["methods"]}
    differences = [_difference(pairs) for pairs in zip(*(summary["differences"] for summary in summaries), strict=True)]
    repetitions = {"kind": kind, "count": len(summaries)}
    return {**first, "repetitions": repetitions, "methods": methods, "differences": differences}


def _by_shots(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results with each number of support examples, if there are any."""
    if not summaries[0].get("by_shots"):
        return {}
    entries = [_entry_by_shots(each) for each in zip(*(summary["by_shots"] for summary in summaries), strict=True)]
    return {"by_shots": entries, "over_shots": _entry_by_shots([summary["over_shots"] for summary in summaries])}


def _entry_by_shots(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    methods = {}
    for name, first in each[0]["methods"].items():
        of_method = [entry["methods"][name] for entry in each]
        methods[name] = _measures(of_method) | (
            {"harmed": _mean([one["harmed"] for one in of_method])} if "harmed" in first else {}
        )
    differences = []
    for pairs in zip(*(entry["differences"] for entry in each), strict=True):
        means = {name: np.array([pair[name]["mean"] for pair in pairs], np.float64) for name in _names(pairs[0])}
        differences.append({key: pairs[0][key] for key in ("of", "against")} | {key: paired(found) for key, found in means.items()})
    counts = {key: sum(entry[key] for entry in each) for key in ("tasks", "left_out") if key in each[0]}
    return {"shots": each[0].get("shots"), **counts, "methods": methods, "differences": differences}


def _method(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = results[0]
    rates = {result["inner_lr"] for result in results}
    return {
        **{name: first[name] for name in ("label", "about", "color", "line", "baseline", "takes_steps")},
        **{name: first[name] for name in ("reference", "simple") if name in first},
        "inner_lr": rates.pop() if len(rates) == 1 else None,
        "steps": [_entry(entries) for entries in zip(*(result["steps"] for result in results), strict=True)],
        "inductive": first["inductive"] and _measures([result["inductive"] for result in results]),
        "collected": first["collected"] and _measures([result["collected"] for result in results]),
        "pooled": {name: _mean([result["pooled"][name] for result in results]) for name in first["pooled"]},
        "calibration": None,
    }


def _entry(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counted = {"step": entries[0]["step"], "diverged": sum(entry["diverged"] for entry in entries)}
    return counted | {"improved": _mean([entry["improved"] for entry in entries])} | _measures(entries)


def _difference(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    named = {key: pairs[0][key] for key in ("of", "against")}
    means = {name: np.array([pair[name]["mean"] for pair in pairs], np.float64) for name in _names(pairs[0])}
    return named | {"better": _mean([pair["better"] for pair in pairs])} | {name: paired(each) for name, each in means.items()}


def _measures(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The statistics of each metric."""
    return {name: _statistics([entry[name] for entry in entries]) for name in _names(entries[0])}


def _names(entry: Mapping[str, Any]) -> list[str]:
    """The metrics for which it has statistics."""
    return [name for name, statistics in entry.items() if isinstance(statistics, Mapping)]


def _statistics(each: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    means = mean(np.array([one["mean"] for one in each], np.float64))
    return {name: means[name] if name in ("mean", "ci95") else _mean([one[name] for one in each]) for name in each[0]}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
