"""Settings of heads that are solved for in closed form."""

from typing import Literal

from pydantic import Field

from metaopt_core.spec.base import Spec


class ProcessSpec(Spec):
    """A Gaussian process on learned features."""

    kernel: Literal["rbf", "linear"] = Field(
        "rbf", description="Of features: `rbf`, by their distance, with a learned length scale, or `linear`, by their product."
    )
    kernel_parameters: Literal["shared", "by_task"] = Field(
        "shared",
        description="Noise, output scale and length scale: `shared` by all tasks and learned with the features (DKT), or fitted "
        "`by_task` to each support set (ADKF).",
    )
    trained_by: Literal["marginal_likelihood", "queries"] = Field(
        "marginal_likelihood",
        description="What training maximizes: the `marginal_likelihood` of a task's support and query examples together, or how "
        "likely its `queries` are, given the support set.",
    )
