"""A pipeline run with several seeds: the executions that it amounts to, and their results as one, with intervals over the seeds."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.stages import identities
from metaopt_core.spec.models import PipelineSpec


def repeats(spec: PipelineSpec) -> list[PipelineSpec]:
    """The pipeline once for each seed: seed, seed + 1, …"""
    return [spec.model_copy(update={"seed": spec.seed + index, "seeds": 1}) for index in range(spec.seeds)]


def group(spec: PipelineSpec) -> str:
    """The name of the executions together."""
    fingerprints = "".join(identities(one)["log"].fingerprint for one in repeats(spec))
    return f"{spec.name}-{spec.seeds}-seeds-{hashlib.sha256(fingerprints.encode()).hexdigest()[:8]}"


def record(home: Home, spec: PipelineSpec) -> Path:
    """Where the results over the seeds lie, once all are there and in MLflow."""
    return home.root / "seeds" / f"{group(spec)}.json"


def summarize(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `evaluation.summarize` says of one seed, for several.

    Of means it gives the mean over the seeds and half the width of its 95 % interval; of all else the mean over the seeds, null
    where a seed has none, or the sum of diverged tasks. A step size is given where all seeds have the same.
    """
    from metaopt_core.evaluation.protocol import note_changes  # here, because whoever plans has no use for it

    found = _summary(summaries)
    shifted = {name: _summary([summary["shifted"][name] for summary in summaries]) for name in summaries[0]["shifted"]}
    for variant in shifted.values():
        note_changes(found, variant)
    return found | {"shifted": shifted}


def _summary(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = summaries[0]
    methods = {name: _method([summary["methods"][name] for summary in summaries]) for name in first["methods"]}
    differences = [_difference(pairs) for pairs in zip(*(summary["differences"] for summary in summaries), strict=True)]
    return {**first, "seeds": len(summaries), "methods": methods, "differences": differences}


def _method(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = results[0]
    rates = {result["inner_lr"] for result in results}
    return {
        "label": first["label"],
        "takes_steps": first["takes_steps"],
        "inner_lr": rates.pop() if len(rates) == 1 else None,
        "steps": [_entry(entries) for entries in zip(*(result["steps"] for result in results), strict=True)],
        "inductive": first["inductive"] and _measures([result["inductive"] for result in results]),
        "collected": first["collected"] and _measures([result["collected"] for result in results]),
        "calibration": first["calibration"] and {"ece": _mean([result["calibration"]["ece"] for result in results])},
    }


def _entry(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counted = {"step": entries[0]["step"], "diverged": sum(entry["diverged"] for entry in entries)}
    return counted | {"improved": _mean([entry["improved"] for entry in entries])} | _measures(entries)


def _difference(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    named = {key: pairs[0][key] for key in ("of", "against")}
    return named | {"better": _mean([pair["better"] for pair in pairs])} | _measures(pairs)


def _measures(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Loss and accuracy, where there are any."""
    names = [name for name in ("loss", "accuracy") if name in entries[0]]
    return {name: entries[0][name] and _statistics([entry[name] for entry in entries]) for name in names}


def _statistics(seeds: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    import numpy as np

    from metaopt_core.evaluation.protocol import statistics

    means = statistics(np.array([one["mean"] for one in seeds], np.float64))
    return {name: means[name] if name in ("mean", "ci95") else _mean([one[name] for one in seeds]) for name in seeds[0]}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
