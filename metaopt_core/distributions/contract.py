"""The contract of a task distribution: its declared side (`metaopt_core.spec.distribution`), and how its tasks are made and drawn.

`generate` materializes a distribution into a folder; the other stages load it from there, with the shape of its tasks, which may
be known only since the data have been seen. Modules of distributions import torch, NumPy and pandas only inside the functions
that compute.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metaopt_core.distributions.findings import Findings
from metaopt_core.spec.components import DISTRIBUTIONS, find
from metaopt_core.spec.distribution import DistributionSpec, TaskShape

if TYPE_CHECKING:
    from metaopt_core.distributions.batch import Episode, HeldOutSplit, PooledSplit, Rows, TaskDistribution


class Distribution(DistributionSpec):
    """Base of all distributions. A subclass is a component that a spec may name."""

    def materialize(self, seed: int, downloads: Path, folder: Path) -> TaskShape:
        """Write everything that `load` needs into a folder, including held-out tasks, in formats that are safe to open.

        downloads: a folder for what has to be downloaded, which outlives the output. Raises UserError for data that can't be used.
        """
        raise NotImplementedError

    def load(self, seed: int, folder: Path) -> "TaskDistribution":
        """The distribution in memory, from what `materialize` wrote, whose meta-train tasks are a function of a seed."""
        raise NotImplementedError


class Generated:
    """Base of loaded distributions whose tasks have any number of examples, and no names."""

    def enough(self, split: "HeldOutSplit", episode: "Episode") -> Sequence[int]:  # noqa: ARG002
        return range(self.held_out_count(split))

    def held_out_count(self, split: "HeldOutSplit") -> int:
        raise NotImplementedError

    def task_names(self, split: "HeldOutSplit") -> Sequence[str] | None:  # noqa: ARG002
        return None

    def rows(self, split: "PooledSplit") -> "Rows | None":  # noqa: ARG002
        return None

    def findings(self) -> Findings:
        return Findings()


def materialize(distribution: DistributionSpec, seed: int, downloads: Path, folder: Path) -> TaskShape:
    """Write a distribution into a folder, with the spec and the seed (distribution.json) and the shape of its tasks
    (shape.json)."""
    assert isinstance(distribution, Distribution)
    shape = distribution.materialize(seed, downloads, folder)
    record(distribution, shape, seed, folder)
    return shape


def record(distribution: DistributionSpec, shape: TaskShape, seed: int, folder: Path) -> None:
    """Write the files by which `load` recognizes a materialized distribution."""
    values = distribution.model_dump(mode="json", exclude=set(distribution.not_identity)) | {"seed": seed}
    (folder / "distribution.json").write_text(json.dumps(values, indent=1))
    (folder / "shape.json").write_text(json.dumps(shape.as_json()))


def load(folder: Path, seed: int) -> "tuple[TaskDistribution, TaskShape]":
    """The distribution that `materialize` wrote, and the shape of its tasks. seed: of the meta-train tasks that are drawn."""
    values = json.loads((folder / "distribution.json").read_text())
    kind: type[Distribution] = find(DISTRIBUTIONS, Distribution, values["distribution"])
    shape = TaskShape.from_json(json.loads((folder / "shape.json").read_text()))
    return kind.model_validate(values).load(seed, folder), shape
