"""Untrained parameters, fine-tuned: shows what training is worth."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Adapter, Method, Setting

if TYPE_CHECKING:
    from metaopt_core.networks.network import Params


class RandomInitialization(Method):
    """A random initialization, with its best step size."""

    name = "random"
    title = "random init"
    rank = 40
    color = "tab:gray"
    optional = False
    takes_steps = True
    about = "never trained, and fine-tuned to each task: plain gradient descent on all parameters"

    def prepare(self, setting: Setting, trained: "Mapping[str, Params]") -> Adapter | None:  # noqa: ARG002
        from metaopt_core.distributions.random import Stream
        from metaopt_core.meta.learner import Learner
        from metaopt_core.methods.by_gradient import fine_tuned

        network = Learner.from_spec(setting.spec, setting.shape).as_baseline().network
        return fine_tuned(setting, self.title, network.init(setting.spec.seed, Stream.BASELINE_PARAMETERS))
