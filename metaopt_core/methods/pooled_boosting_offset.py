"""Pooled gradient boosting, moved up or down for each task."""

from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class PooledBoostingOffset(Fitted):
    """The offset is shrunk: the fewer examples a task has, the less it moves."""

    name = "pooled_boosting_offset"
    title = "pooled boosting + offset"
    rank = 57
    color = "goldenrod"
    libraries = ("lightgbm",)
    simple = 5
    about = "pooled boosting, plus the mean of what it leaves of the task's examples, shrunk by how few these are"

    def fit(self, setting: Setting) -> "Params":
        from metaopt_core.methods import boosting, linear

        return linear.with_offset(setting, boosting.pooled_boosting(setting), boosting.trees_of)

    def predictor(self, params: "Params") -> "Predictor":
        from metaopt_core.methods import boosting, linear

        return linear.offset(boosting.trees_of(params), params)
