"""A table: rows of many small, related problems, such as the compounds of an assay or the patients of a clinic.

A column says to which task a row belongs, another one what to predict. Tasks, not rows, are split, and everything that is fitted
(what stands for missing values, categories, units) is fitted to the meta-train tasks alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from metaopt_core.distributions.contract import Distribution
from metaopt_core.distributions.table import files
from metaopt_core.distributions.table.settings import TableSettings
from metaopt_core.spec.distribution import TaskShape

if TYPE_CHECKING:
    from metaopt_core.distributions.batch import TaskDistribution


class TableSpec(TableSettings, Distribution):
    """A table, from a CSV or Parquet file or a database: each task has some of its rows."""

    distribution: Literal["table"] = Field(description="Which p(T): where tasks come from.")

    def data(self) -> dict[str, str]:
        found = files.digests(self)
        if self.path is not None:
            return found
        from metaopt_core.distributions.table import source

        return {"query": source.database_digest(self)} | found

    def located(self, environment: Mapping[str, str]) -> Self:
        found = files.located(self.path, environment)
        return self if found == self.path else self.model_copy(update={"path": found})

    def materialize(self, seed: int, downloads: Path, folder: Path) -> TaskShape:  # noqa: ARG002
        from metaopt_core.distributions.table import writing

        made = writing.write(self, seed, folder)
        shape, prepared = (len(made.names),), json.dumps(made.as_json())
        if self.problem == "classification":
            return TaskShape(shape, "classes", preparation=prepared)
        return TaskShape(shape, "real", len(made.targets), made.targets, made.means, made.scales, prepared)

    def load(self, seed: int, folder: Path) -> "TaskDistribution":
        from metaopt_core.distributions.table import drawing

        return drawing.Table.load(self, seed, folder)
