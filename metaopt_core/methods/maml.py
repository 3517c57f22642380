"""MAML and its family: initial parameters that gradient steps adapt, learned through the inner loop (Finn, Abbeel, Levine 2017).

What differs between members (the meta-gradient, which parameters adapt, learned step sizes) are choices of the spec that compose.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Adapter, Method, Setting
from metaopt_core.spec.distribution import Targets
from metaopt_core.spec.method import Named

if TYPE_CHECKING:
    from metaopt_core.networks.network import Params
    from metaopt_core.training.phase import Phase


class GradientBased(Method):
    """The pipeline's own method, named after its algorithm."""

    name = "maml"
    rank = 0
    color = "tab:blue"
    baseline = False
    trained = True
    optional = False
    takes_steps = True
    of_model = "plain"

    def key(self, train: Named) -> str:
        return train.slug

    def label(self, train: Named) -> str:
        return train.label

    def refusal(self, train: Named, targets: Targets) -> str | None:  # noqa: ARG002
        return "takes gradient steps, and the head is solved for" if train.solved else None

    def phase(self, setting: Setting) -> "Phase":
        from dataclasses import replace

        from metaopt_core.meta import step_sizes
        from metaopt_core.meta.learner import Learner
        from metaopt_core.meta.objectives import AfterAdaptation
        from metaopt_core.training import compilation
        from metaopt_core.training.phase import Phase

        spec, shape = setting.spec, setting.shape
        learner = Learner.for_training(spec, shape)
        initial = learner.network.init(spec.seed)
        compiled = replace(learner, compiled=compilation.device_of(spec, shape))
        return Phase(
            key=self.key(spec.train),
            title=self.label(spec.train),
            objective=AfterAdaptation.from_spec(compiled, spec.train),
            initial=initial | step_sizes.initial(spec.train.inner, initial),
            iterations=spec.train.iterations,
            predict=lambda params, tasks: learner.predict_queries(params, tasks, spec.validation_steps),
            keeps_snapshots=True,
            computed_by=compilation.computed_by(spec, shape),
        )

    def prepare(self, setting: Setting, trained: "Mapping[str, Params]") -> Adapter | None:
        from metaopt_core.methods.by_gradient import learned

        return learned(setting, trained[self.key(setting.spec.train)], setting.spec.evaluate.steps)
