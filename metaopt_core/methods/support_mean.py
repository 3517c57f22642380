"""The mean of a task's support set: what a user has who fits nothing, and what others must not be worse than."""

from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.fitted import Fitted

if TYPE_CHECKING:
    from metaopt_core.methods.support import Predictor
    from metaopt_core.networks.network import Params


class SupportMean(Fitted):
    """The same number for every query."""

    name = "support_mean"
    title = "support mean"
    rank = 80
    color = "black"
    reference = True
    simple = 0
    about = "the mean of the task's examples, whatever the query is"

    def fit(self, setting: Setting) -> "Params":  # noqa: ARG002
        import torch

        return {"nothing": torch.zeros(1)}

    def predictor(self, params: "Params") -> "Predictor":  # noqa: ARG002
        return lambda support, query_x: (support.mean[:, None].expand(-1, query_x.shape[1], -1), None)
