"""A repeated pipeline as the executions that it consists of.

`seeds` repeats the training on the same data, `splits` repeats everything on other data: two variances, which are not mixed.
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
    """The name of one repetition of a pipeline; empty if there is only one."""
    if spec.splits > 1:
        return f"split {one.data_seed}"
    return f"seed {one.seed}" if spec.seeds > 1 else ""


def group(spec: PipelineSpec) -> str:
    """The name of all executions together."""
    fingerprints = "".join(identities(one)["log"].fingerprint for one in repeats(spec))
    kind = "splits" if spec.splits > 1 else "seeds"
    return f"{spec.name}-{spec.repetitions}-{kind}-{hashlib.sha256(fingerprints.encode()).hexdigest()[:8]}"


def record(home: Home, spec: PipelineSpec) -> Path:
    """The file with the results over all repetitions, which exists once they are complete and in MLflow."""
    return home.root / "repetitions" / f"{group(spec)}.json"
