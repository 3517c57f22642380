"""A pipeline run with several seeds: the executions that it amounts to, and their results as one, with intervals over the seeds."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaopt_core.home import Home
from metaopt_core.spec.models import PipelineSpec
from metaopt_core.stages import identities


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
    """What `evaluation.summarize` says of one seed, for several: statistics over the seeds of each seed's mean over its tasks."""
    import numpy as np  # here, because whoever plans has no use for it

    from metaopt_core.evaluation import statistics

    first = summaries[0]

    def over_seeds(method: str, step: int) -> dict[str, Any]:
        entries = [summary["methods"][method]["steps"][step] for summary in summaries]
        found = {"step": step, "diverged": sum(entry["diverged"] for entry in entries)}
        for name in ("loss", "accuracy"):
            values = [entry[name]["mean"] for entry in entries] if entries[0][name] else None
            found[name] = values and statistics(np.array(values, np.float64))
        return found

    methods = {
        method: {"label": result["label"], "steps": [over_seeds(method, step) for step in range(len(result["steps"]))]}
        for method, result in first["methods"].items()
    }
    return {**first, "seeds": len(summaries), "methods": methods}
