"""The mixed model: a line for all tasks, from which each task's own differs at random (Laird and Ware 1982)."""

from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class MixedModel(Fitted):
    """Random intercept, and random slopes where these are better on the meta-validation tasks."""

    name = "mixed_model"
    title = "mixed model"
    rank = 50
    color = "tab:red"
    simple = 2
    deviates = True
    about = (
        "a linear model of all tasks with a random intercept, and random slopes where these help, of each, which are inferred from "
        "its examples"
    )

    def fit(self, setting: Setting) -> "Params":
        from metaopt_core.methods import gaussian

        return gaussian.fitted_mixed_model(setting).params

    def predictor(self, params: "Params") -> "Predictor":
        from metaopt_core.methods import gaussian

        return gaussian.predictor(params)
