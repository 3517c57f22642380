"""Features that are learned through a head in closed form: ridge regression (R2-D2) or a Gaussian process (DKT, ADKF).

See `metaopt_core.meta.heads`. What is learned is all but the last layer, the prior mean, and the head's own parameters.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Adapter, Method, Setting
from metaopt_core.spec.distribution import Targets
from metaopt_core.spec.method import Named

if TYPE_CHECKING:
    from metaopt_core.networks.network import Params
    from metaopt_core.training.phase import Phase


class Solved(Method):
    """The pipeline's own method where its head is solved for. Before that, it predicts by the prior mean; it takes one step."""

    name = "solved"
    rank = 1
    color = "royalblue"
    baseline = False
    trained = True
    optional = False
    takes_steps = True
    of_model = "plain"
    about = (
        "learned features with a head in closed form: step 0 is its prior mean, step 1 its solution, and there are no further ones"
    )

    def key(self, train: Named) -> str:
        return train.slug

    def label(self, train: Named) -> str:
        return train.label

    def refusal(self, train: Named, targets: Targets) -> str | None:  # noqa: ARG002
        return None if train.solved else "solves for a head, and this algorithm takes gradient steps"

    def phase(self, setting: Setting) -> "Phase":
        from metaopt_core.meta.learner import Learner
        from metaopt_core.meta.solved import AfterSolving
        from metaopt_core.training.phase import Phase

        spec = setting.spec
        learner = Learner.for_training(spec, setting.shape)
        return Phase(
            key=self.key(spec.train),
            title=self.label(spec.train),
            objective=AfterSolving(learner),
            initial=learner.initial(spec.seed),
            iterations=spec.train.iterations,
            predict=lambda params, tasks: learner.predict_queries(params, tasks, 1),
            keeps_snapshots=True,
            computed_by="PyTorch's operations one by one, through a solution in closed form",
        )

    def prepare(self, setting: Setting, trained: "Mapping[str, Params]") -> Adapter | None:
        from metaopt_core.methods.by_gradient import learned

        return learned(setting, trained[self.key(setting.spec.train)], 1)
