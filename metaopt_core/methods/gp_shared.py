"""A Gaussian process on each task whose hyperparameters, one length scale a feature among them, all tasks share."""

from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class SharedGP(Fitted):
    """They are learned by the marginal likelihood of the training tasks' rows."""

    name = "gp_shared"
    title = "GP with shared scales"
    rank = 51
    color = "mediumorchid"
    simple = 7
    deviates = True
    about = "a Gaussian process on each task, with one length scale a feature that is learned on the training tasks"

    def fit(self, setting: Setting) -> "Params":
        from metaopt_core.methods import gaussian

        return gaussian.fitted_scales(setting).params

    def predictor(self, params: "Params") -> "Predictor":
        from metaopt_core.methods import gaussian

        return gaussian.predictor(params)
