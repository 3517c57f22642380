"""The majority of a task's support set: what a user has who fits nothing, and what others must not be worse than."""

from typing import TYPE_CHECKING, ClassVar

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted
from metaopt_core.spec.distribution import Targets

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class Majority(Fitted):
    """The same shares of the classes for every query, pulled towards equal ones."""

    name = "majority"
    title = "majority"
    rank = 81
    color = "dimgray"
    reference = True
    simple = 0
    of: ClassVar[Targets | None] = "classes"
    about = "the classes' shares of the task's examples, whatever the query is"

    def fit(self, setting: Setting) -> "Params":
        from metaopt_core.methods import alone

        return alone.fitted(setting, alone.PSEUDO_EXAMPLES, alone.majority)

    def predictor(self, params: "Params") -> "Predictor":
        from metaopt_core.methods import alone

        return alone.majority(alone.choices(params))
