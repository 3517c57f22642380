"""Building the network that a spec names."""

import math
from dataclasses import replace

from metaopt_core.errors import UserError
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.mlp import MLP
from metaopt_core.networks.network import Network
from metaopt_core.networks.normalization import TRANSDUCTIVE, Normalization
from metaopt_core.networks.resnet12 import ResNet12
from metaopt_core.networks.user_module import user_module
from metaopt_core.spec.networks import Conv4Spec, MLPSpec, ModelSpec, ModuleSpec, too_small


def build(spec: ModelSpec, input_shape: tuple[int, ...], outputs: int, steps: int | None = None) -> Network:
    """The network that a spec names, for inputs of a shape (without task and example dimensions) and a number of outputs.

    steps: of the inner loop that it is for; without one, `per_step` becomes `transductive`, because there are no steps to
    distinguish. Raises UserError if the network doesn't fit the inputs.
    """
    if isinstance(spec, MLPSpec):
        return MLP((math.prod(input_shape), *spec.hidden, outputs))
    if isinstance(spec, ModuleSpec):
        return user_module(spec.path, spec.arguments, input_shape, outputs)
    if len(input_shape) != 3:
        raise UserError(
            f"train.model.name: {spec.name} takes pictures, and inputs of these tasks have the shape {list(input_shape)}: expected "
            "mlp or module"
        )
    channels, height, width = input_shape
    if wrong := too_small(spec, height, width):
        raise UserError(f"train.model: {wrong}")
    kind = "transductive" if spec.normalization == "per_step" and steps is None else spec.normalization
    normalization = Normalization(kind, spec.groups, steps or 1)
    if isinstance(spec, Conv4Spec):
        return Conv4(channels, spec.filters, outputs, normalization, spec.pooling, (height, width))
    return ResNet12(channels, spec.widths, outputs, normalization, (height, width))


def without_steps(network: Network) -> Network:
    """The network with the same parameters in every step."""
    return replace(network, normalization=TRANSDUCTIVE) if isinstance(network, Conv4 | ResNet12) and network.per_step else network
