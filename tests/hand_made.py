"""Tables of tasks made by hand, and what the statistics make of them."""

from typing import Any, cast

import pandas as pd

from metaopt_core.distributions.batch import TaskDistribution
from metaopt_core.evaluation.protocol import Measured, Prepared
from metaopt_core.evaluation.summary import summarize
from metaopt_core.methods.contract import Adapter, Setting, compared
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.pipeline import PipelineSpec


class Unnamed:
    """As much of a distribution as a summary asks for."""

    def task_names(self, split: str) -> None:
        """They have none."""


SPEC = PipelineSpec.model_validate(
    {
        "name": "s",
        "generate": {"distribution": "sinusoid"},
        "train": {"model": {"name": "mlp"}, "iterations": 1, "shots": 5, "queries": 5},
        "evaluate": {"steps": 1},
    }
)


def summary_of(spec: PipelineSpec, table: pd.DataFrame) -> dict[str, Any]:
    """The summary of the methods that a table has rows of; no distribution and no parameters are needed for it."""
    setting = Setting(spec, cast(TaskShape, spec.generate.shape), cast(TaskDistribution, Unnamed()))
    train = spec.train
    ready = [Prepared(method, cast(Adapter, None), method.key(train), method.label(train)) for method in compared(spec)]
    of_table = [one for one in ready if (table["method"] == one.key).any()]
    pooled: dict[str, dict[str, float]] = {one.key: {} for one in of_table}
    return summarize(setting, Measured(table, dict.fromkeys(table["variant"].unique(), pooled)), of_table)
