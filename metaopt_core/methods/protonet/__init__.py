"""Prototypical networks (Snell, Swersky, Zemel 2017): a query belongs to the class whose mean is nearest in a learned embedding.

Nothing is adapted: a task's support set only places the class means. The embedding is the network of the spec with `WIDTH` outputs
instead of a task's classes.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Adapter, Method, Setting
from metaopt_core.spec.distribution import Targets
from metaopt_core.spec.method import Named

if TYPE_CHECKING:
    from metaopt_core.networks.network import Params
    from metaopt_core.spec.distribution import TaskShape
    from metaopt_core.spec.train import TrainSpec
    from metaopt_core.training.phase import Phase


class ProtoNet(Method):
    """The nearest class mean; only for classification."""

    name = "protonet"
    title = "ProtoNet"
    rank = 20
    color = "tab:green"
    line = "--"
    trained = True
    about = "a query belongs to the class whose mean is nearest in a learned embedding"

    def refusal(self, train: Named, targets: Targets) -> str | None:  # noqa: ARG002
        return None if targets == "classes" else "needs classes, and TASKS have none"

    def phase(self, setting: Setting) -> "Phase":
        from metaopt_core.methods.protonet.prototypes import NearestMean, embedding_learner, predictions
        from metaopt_core.training.phase import Phase

        embedding = embedding_learner(setting.spec, setting.shape)
        return Phase(
            key=self.name,
            title="ProtoNet (baseline)",
            objective=NearestMean(embedding),
            initial=embedding.network.init(setting.spec.seed),
            iterations=setting.spec.pretrain_iterations,
            predict=lambda params, tasks: predictions(embedding, params, tasks),
        )

    def served(self, train: "TrainSpec", shape: "TaskShape", inner_lr: float, steps: int, params: "Params") -> Adapter:  # noqa: ARG002
        from metaopt_core.methods.protonet import prototypes

        return prototypes.served(train, shape, params)

    def prepare(self, setting: Setting, trained: "Mapping[str, Params]") -> Adapter | None:
        from metaopt_core.methods.protonet.prototypes import ByPrototypes, embedding_learner

        return ByPrototypes(embedding_learner(setting.spec, setting.shape), trained[self.name])
