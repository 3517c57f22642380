"""Examples and parameters are checked on entry, once for each loss: what doesn't fit is reported with its shape.

PyTorch broadcasts where it can, so that targets [tasks, examples] of outputs [tasks, examples, 1] would give a number, and the
compiled loops read what they are given.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from metaopt_core.networks.network import Network


def examples(network: Network, x: Tensor, y: Tensor, weight: Tensor | None, classification: bool) -> None:
    """Raises ValueError unless a network's loss on inputs x [tasks, examples, …], targets y and weights can be computed."""
    shape = x.shape
    if len(shape) < 3 or not x.is_floating_point():
        raise ValueError(f"inputs: found {_described(x)}: expected real numbers [tasks, examples, …]")
    if shape[1] == 0:
        raise ValueError(f"inputs: found {_described(x)}, no example: expected at least one to take a gradient on, or 0 steps")
    network.check(shape[2:])
    if y.get_device() != x.get_device() or (y.dtype != x.dtype and not classification):
        raise ValueError(f"targets: found {_described(y)}, and inputs of {x.dtype} on {x.device}: expected the same")
    targets(y, (shape[0], shape[1], network.outputs), classification)
    if weight is not None and (weight.shape != shape[:2] or weight.device != x.device or not weight.is_floating_point()):
        expected = f"real numbers {list(shape[:2])} on {x.device}, one for each example"
        raise ValueError(f"weights: found {_described(weight)}: expected {expected}")


def targets(y: Tensor, outputs: tuple[int, ...], classification: bool) -> None:
    """Raises ValueError unless targets fit outputs of a shape [tasks, examples, outputs]."""
    expected = outputs[:2] if classification else outputs
    if y.shape != expected or (classification and y.dtype != torch.int64):
        kind = "class labels, int64," if classification else "real numbers"
        raise ValueError(f"targets: found {_described(y)}: expected {kind} {list(expected)}, for outputs {list(outputs)}")


def parameters(params: Mapping[str, Tensor], support_x: Tensor, query_x: Tensor) -> None:
    """Raises ValueError unless parameters and inputs are numbers of one type on one device."""
    dtype, device = support_x.dtype, support_x.get_device()
    for name, value in (*params.items(), ("", query_x)):
        if value.dtype != dtype or value.get_device() != device:
            what = f"the parameter {name} is" if name else "queries are"
            raise ValueError(
                f"{what} {value.dtype} on {value.device}, support examples {dtype} on {support_x.device}: expected the same"
            )


def shapes(params: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> None:
    """Raises ValueError unless parameters have the network's names and shapes."""
    for name, shape in expected.items():
        value = params.get(name)
        if value is None:
            raise ValueError(f"the parameter {name} is missing: expected the network's, {', '.join(expected)}")
        if value.shape != shape:
            raise ValueError(f"the parameter {name} has shape {list(value.shape)}: expected {list(shape)}")


def _described(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} of {tensor.dtype} on {tensor.device}"
