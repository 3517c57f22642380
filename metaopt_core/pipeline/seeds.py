"""A pipeline run with several seeds: the executions that it amounts to."""

import hashlib
from pathlib import Path

from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.stages import identities
from metaopt_core.spec.pipeline import PipelineSpec


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
