"""A Gaussian process on each task alone."""

from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class GPAlone(Fitted):
    """Each task's length scale and noise are the likeliest of a grid, given its own examples."""

    name = "gp_alone"
    title = "GP on the task alone"
    rank = 69
    color = "rebeccapurple"
    simple = 6
    deviates = True
    about = "a Gaussian process on a task's own examples, which choose its length scale and noise"

    def fit(self, setting: Setting) -> "Params":
        from metaopt_core.methods import gp_grid

        return gp_grid.fitted(setting)

    def predictor(self, params: "Params") -> "Predictor":
        from metaopt_core.methods import gp_grid

        return gp_grid.predictor(params)
