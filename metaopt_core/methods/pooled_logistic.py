"""Logistic regression on the rows of all tasks together, where a label means the same in every task; by scikit-learn."""

from typing import TYPE_CHECKING, ClassVar

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted
from metaopt_core.spec.distribution import Targets

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class PooledLogistic(Fitted):
    """A new task's examples change nothing."""

    name = "pooled_logistic"
    title = "pooled logistic regression"
    rank = 61
    color = "yellowgreen"
    libraries = ("scikit-learn",)
    simple = 1
    of: ClassVar[Targets | None] = "classes"
    about = "logistic regression on the examples of all training tasks together; a task's own examples change nothing"

    def fit(self, setting: Setting) -> "Params":
        from metaopt_core.methods import alone

        return alone.pooled_logistic(setting)

    def predictor(self, params: "Params") -> "Predictor":
        from metaopt_core.methods import linear

        return lambda support, query_x: (linear.line(params, query_x), None)  # noqa: ARG005
