"""Ridge regression on the features of the pre-trained network (`metaopt_core.methods.on_features`)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Adapter, Method, Setting
from metaopt_core.spec.distribution import Targets
from metaopt_core.spec.method import Named

if TYPE_CHECKING:
    from metaopt_core.networks.network import Params


class PretrainedRidge(Method):
    """It needs the baseline `pretrained`, and is left out without it."""

    name = "pretrained_ridge"
    title = "pre-trained + ridge head"
    rank = 31
    color = "coral"
    line = ""
    simple = 20
    about = "ridge regression on the features of the pre-trained network"

    def refusal(self, train: Named, targets: Targets) -> str | None:  # noqa: ARG002
        return None if targets == "real" else "predicts numbers, and TASKS have classes"

    def prepare(self, setting: Setting, trained: "Mapping[str, Params]") -> Adapter | None:
        from metaopt_core.methods import linear, on_features

        return on_features.ready(setting, trained, linear.ALONE, linear.alone)
