"""Methods that are fitted without gradient training: what an expert would try first.

`fit` finds arrays on meta-train tasks and chooses on meta-validation tasks; `predictor` makes predictions of them and of a task's
support set. So such a method is data and code, and nothing has to be pickled.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from metaopt_core.methods.contract import Adapter, Method, Setting
from metaopt_core.spec.distribution import Targets, TaskShape
from metaopt_core.spec.method import Named

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params
    from metaopt_core.spec.train import TrainSpec


class Fitted(Method):
    """Base of them. of: the kind of targets; none means both. deviates: whether predictions have standard deviations."""

    fitted = True
    line = ""
    of: ClassVar[Targets | None] = "real"
    deviates: ClassVar[bool] = False

    def refusal(self, train: Named, targets: Targets) -> str | None:  # noqa: ARG002
        if self.of in (None, targets):
            return None
        return "predicts numbers, and TASKS have classes" if self.of == "real" else "needs classes, and TASKS have none"

    def predictor(self, params: "Params") -> "Predictor":
        """What predicts, from what `fit` found."""
        raise NotImplementedError

    def ready(self, params: "Params") -> Adapter:
        """The method ready for tasks, from what `fit` found."""
        from metaopt_core.methods.from_support import FromSupport

        return FromSupport(self.predictor(params), self.deviates)

    def served(self, train: "TrainSpec", shape: TaskShape, inner_lr: float, steps: int, params: "Params") -> Adapter:  # noqa: ARG002
        return self.ready(params)

    def prepare(self, setting: Setting, trained: "Mapping[str, Params]") -> Adapter | None:
        params = trained[self.key(setting.spec.train)]
        return self.ready(params) if params else None
