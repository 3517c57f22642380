"""Pooled ridge regression, moved up or down for each task."""

from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class PooledRidgeOffset(Fitted):
    """The offset is shrunk: the fewer examples a task has, the less it moves."""

    name = "pooled_ridge_offset"
    title = "pooled ridge + offset"
    rank = 58
    color = "olivedrab"
    simple = 2.5
    about = "pooled ridge, plus the mean of what it leaves of the task's examples, shrunk by how few these are"

    def fit(self, setting: Setting) -> "Params":
        from metaopt_core.methods import linear

        return linear.with_offset(setting, linear.pooled_ridge(setting), linear.line_of)

    def predictor(self, params: "Params") -> "Predictor":
        from metaopt_core.methods import linear

        return linear.offset(linear.line_of(params), params)
