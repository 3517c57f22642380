"""Ridge regression on each task alone."""

from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class RidgeAlone(Fitted):
    """The penalty is chosen on meta-validation tasks, for each number of examples."""

    name = "ridge_alone"
    title = "ridge on the task alone"
    rank = 70
    color = "deepskyblue"
    simple = 6
    about = "ridge regression on a task's own examples"

    def fit(self, setting: Setting) -> "Params":
        from metaopt_core.methods import linear

        return linear.ridge_alone(setting)

    def predictor(self, params: "Params") -> "Predictor":
        from metaopt_core.methods import linear
        from metaopt_core.methods.from_support import Choices

        return linear.alone(Choices(params["shots"], params["penalty"]))
