"""A mixed model with a Gaussian process on what it leaves of each task."""

from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class MixedModelGP(Fitted):
    """The process, the same prior for all tasks, is learned by the marginal likelihood of their rows."""

    name = "mixed_model_gp"
    title = "mixed model + GP"
    rank = 49
    color = "tab:pink"
    simple = 8
    deviates = True
    about = "the mixed model, and a Gaussian process on what it leaves of a task's examples"

    def fit(self, setting: Setting) -> "Params":
        from metaopt_core.methods import gaussian

        return gaussian.fitted_on_residuals(setting).params

    def predictor(self, params: "Params") -> "Predictor":
        from metaopt_core.methods import gaussian

        return gaussian.predictor(params)
