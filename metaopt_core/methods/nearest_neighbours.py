"""k nearest neighbours among a task's own examples."""

from typing import TYPE_CHECKING, ClassVar

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted
from metaopt_core.spec.distribution import Targets

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class NearestNeighbours(Fitted):
    """k is chosen on meta-validation tasks, for each number of examples."""

    name = "nearest_neighbours"
    title = "nearest neighbours"
    rank = 72
    color = "sienna"
    simple = 6
    of: ClassVar[Targets | None] = None
    about = "the mean of the nearest of a task's own examples; of classes, their shares"

    def fit(self, setting: Setting) -> "Params":
        from metaopt_core.methods import alone

        return alone.fitted(setting, alone.NEIGHBOURS, alone.nearest)

    def predictor(self, params: "Params") -> "Predictor":
        from metaopt_core.methods import alone

        return alone.nearest(alone.choices(params))
