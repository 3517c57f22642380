"""One pipeline of `pipelines.yaml`: the four stages together, checked as a whole.

These models are also the parameters of the Prefect flows, so a spec that arrives through Prefect's API is checked by the same rules
as one that was read from a file.
"""

from typing import Self

from pydantic import model_validator

from metaopt_core.spec.base import impossible
from metaopt_core.spec.impossible import impossibilities
from metaopt_core.spec.resolved import Resolved


class PipelineSpec(Resolved):
    """One valid pipeline, with all defaults filled in."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        problems = list(impossibilities(self))
        if problems:
            raise impossible(problems)
        return self
