"""A random forest on each task alone (Breiman 2001), of scikit-learn's trees."""

from typing import TYPE_CHECKING, ClassVar

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted
from metaopt_core.spec.distribution import Targets

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class RandomForest(Fitted):
    """The smallest leaf is chosen on meta-validation tasks, for each number of examples."""

    name = "random_forest"
    title = "random forest on the task alone"
    rank = 71
    color = "forestgreen"
    libraries = ("scikit-learn",)
    simple = 9
    of: ClassVar[Targets | None] = None
    about = "a random forest on a task's own examples"

    def fit(self, setting: Setting) -> "Params":
        from metaopt_core.methods import alone

        return alone.fitted(setting, alone.LEAVES, alone.forest, most=alone.TASKS_FOR_FORESTS)

    def predictor(self, params: "Params") -> "Predictor":
        from metaopt_core.methods import alone

        return alone.forest(alone.choices(params))
