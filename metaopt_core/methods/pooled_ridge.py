"""Ridge regression on the rows of all tasks together: one line for all, which no task bends."""

from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class PooledRidge(Fitted):
    """A new task's examples change nothing."""

    name = "pooled_ridge"
    title = "pooled ridge"
    rank = 60
    color = "tab:olive"
    simple = 1
    about = "ridge regression on the examples of all training tasks together; a task's own examples change nothing"

    def fit(self, setting: Setting) -> "Params":
        from metaopt_core.methods import linear

        return linear.pooled_ridge(setting)

    def predictor(self, params: "Params") -> "Predictor":
        from metaopt_core.methods import linear

        return lambda support, query_x: (linear.line(params, query_x), None)  # noqa: ARG005
