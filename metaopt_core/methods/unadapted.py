"""The pipeline's own parameters without adaptation, on which adaptation has to improve."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Adapter, Method, Setting

if TYPE_CHECKING:
    from metaopt_core.networks.network import Params


class Unadapted(Method):
    """No adaptation."""

    name = "unadapted"
    title = "no adaptation"
    rank = 90
    color = "tab:brown"
    line = ""  # where the curve of the learned parameters begins
    optional = False
    about = "the learned parameters after 0 steps"

    def prepare(self, setting: Setting, trained: "Mapping[str, Params]") -> Adapter | None:
        from metaopt_core.methods.by_gradient import learned

        return learned(setting, trained[setting.spec.train.slug], 0)
