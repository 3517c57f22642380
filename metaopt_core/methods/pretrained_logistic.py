"""Logistic regression on the features of the pre-trained network (`metaopt_core.methods.on_features`)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Adapter, Method, Setting
from metaopt_core.spec.distribution import Targets
from metaopt_core.spec.method import Named

if TYPE_CHECKING:
    from metaopt_core.networks.network import Params


class PretrainedLogistic(Method):
    """It needs the baseline `pretrained`, and is left out without it."""

    name = "pretrained_logistic"
    title = "pre-trained + logistic regression"
    rank = 32
    color = "chocolate"
    libraries = ("scikit-learn",)
    line = ""
    simple = 20
    about = "logistic regression on the features of the pre-trained network"

    def refusal(self, train: Named, targets: Targets) -> str | None:  # noqa: ARG002
        return None if targets == "classes" else "needs classes, and TASKS have none"

    def prepare(self, setting: Setting, trained: "Mapping[str, Params]") -> Adapter | None:
        from metaopt_core.methods import alone, on_features

        return on_features.ready(setting, trained, alone.STRENGTHS, alone.logistic)
