"""Pooled gradient boosting whose features say what a task's support set says of a query."""

from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class BoostingOnSupport(Fitted):
    """What pooled ridge regression with an offset leaves, learned from the support set's mean, spread and nearest examples."""

    name = "boosting_on_support"
    title = "boosting on support"
    rank = 56
    color = "peru"
    simple = 10
    about = (
        "gradient boosting on the examples of all training tasks, with features made from the task's examples: their number, mean, "
        "spread and the targets of the nearest ones"
    )

    def fit(self, setting: Setting) -> "Params":
        from metaopt_core.methods import support_features

        return support_features.fitted(setting)

    def predictor(self, params: "Params") -> "Predictor":
        from metaopt_core.methods import support_features

        return support_features.predictor(params)
