"""The pipeline's own parameters, adapted so that adaptation can't diverge (`metaopt_core.meta.safe_adaptation`)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Adapter, Method, Setting
from metaopt_core.spec.distribution import Targets
from metaopt_core.spec.method import Named

if TYPE_CHECKING:
    from metaopt_core.networks.network import Params


class Safe(Method):
    """See `metaopt_core.methods.maml` for how the parameters are learned."""

    name = "safe"
    rank = 10
    color = "tab:cyan"
    line = "o:"
    baseline = False
    optional = False
    takes_steps = True
    of_model = "safe"
    about = (
        "halves a task's step size until its support loss falls, and stops once adaptation clearly harms a held-out part of the "
        "support set, if that has 25 examples or more"
    )

    def key(self, train: Named) -> str:
        return f"{train.slug}_safe"

    def label(self, train: Named) -> str:
        return f"{train.label}, safe"

    def refusal(self, train: Named, targets: Targets) -> str | None:  # noqa: ARG002
        return "takes gradient steps, and the head is solved for" if train.solved else None

    def prepare(self, setting: Setting, trained: "Mapping[str, Params]") -> Adapter | None:
        from dataclasses import replace

        from metaopt_core.methods.by_gradient import learned

        found = learned(setting, trained[setting.spec.train.slug], setting.spec.evaluate.steps)
        return replace(found, learner=replace(found.learner, adaptation="safe")) if found.learner.can_be_safe else None
