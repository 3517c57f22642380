"""Logistic regression on each task alone, by scikit-learn."""

from typing import TYPE_CHECKING, ClassVar

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted
from metaopt_core.spec.distribution import Targets

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class LogisticAlone(Fitted):
    """The penalty is chosen on meta-validation tasks, for each number of examples."""

    name = "logistic_alone"
    title = "logistic regression on the task alone"
    rank = 70.5
    color = "steelblue"
    libraries = ("scikit-learn",)
    simple = 6
    of: ClassVar[Targets | None] = "classes"
    about = "logistic regression on a task's own examples"

    def fit(self, setting: Setting) -> "Params":
        from metaopt_core.methods import alone

        return alone.fitted(setting, alone.STRENGTHS, alone.logistic)

    def predictor(self, params: "Params") -> "Predictor":
        from metaopt_core.methods import alone

        return alone.logistic(alone.choices(params))
