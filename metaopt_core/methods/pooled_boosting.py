"""Gradient boosting on the rows of all tasks together, by LightGBM (Ke et al. 2017)."""

from typing import TYPE_CHECKING, ClassVar

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted
from metaopt_core.spec.distribution import Targets

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class PooledBoosting(Fitted):
    """A new task's examples change nothing. Of classes, only where a label means the same in every task."""

    name = "pooled_boosting"
    title = "pooled boosting"
    rank = 59
    color = "darkgoldenrod"
    libraries = ("lightgbm",)
    simple = 4
    of: ClassVar[Targets | None] = None
    about = "gradient boosting on the examples of all training tasks together; a task's own examples change nothing"

    def fit(self, setting: Setting) -> "Params":
        from metaopt_core.methods import boosting

        return boosting.pooled_boosting(setting)

    def predictor(self, params: "Params") -> "Predictor":
        from metaopt_core.methods import boosting

        found = boosting.trees_of(params)
        return lambda support, query_x: (found(query_x), None)  # noqa: ARG005
