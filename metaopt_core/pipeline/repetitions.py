"""A pipeline that is repeated: the executions that it amounts to.

`seeds` repeats its training on the same data, and `splits` its data: two variances, which are not mixed.
"""

import hashlib
from pathlib import Path

from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.identity import identities
from metaopt_core.spec.pipeline import PipelineSpec


def repeats(spec: PipelineSpec) -> list[PipelineSpec]:
    """The pipeline once for each repetition: with seed, seed + 1, … and the data of the first, or with as many seeds of its
    data."""
    once = {"seeds": 1, "splits": 1}
    found = []
    for index in range(spec.repetitions):
        of_data = spec.data_seed + (index if spec.splits > 1 else 0)
        generate = spec.generate if spec.repetitions == 1 else spec.generate.model_copy(update={"seed": of_data})
        seed = spec.seed + (index if spec.seeds > 1 else 0)
        found.append(spec.model_copy(update={"seed": seed, "generate": generate, **once}))
    return found


def named(spec: PipelineSpec, one: PipelineSpec) -> str:
    """Which repetition of a pipeline one is; empty where there is but one."""
    if spec.splits > 1:
        return f"split {one.data_seed}"
    return f"seed {one.seed}" if spec.seeds > 1 else ""


def group(spec: PipelineSpec) -> str:
    """The name of the executions together."""
    fingerprints = "".join(identities(one)["log"].fingerprint for one in repeats(spec))
    kind = "splits" if spec.splits > 1 else "seeds"
    return f"{spec.name}-{spec.repetitions}-{kind}-{hashlib.sha256(fingerprints.encode()).hexdigest()[:8]}"


def record(home: Home, spec: PipelineSpec) -> Path:
    """Where the results over the repetitions are, once all are there and in MLflow."""
    return home.root / "repetitions" / f"{group(spec)}.json"
