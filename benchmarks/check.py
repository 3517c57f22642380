"""Ensures that the same work is timed: meta-gradients and losses of all contenders are compared first, on the workload itself."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from benchmarks.contender import Factory, set_threads
from benchmarks.setting import Setting, in_dtype
from metaopt_core.errors import UserError
from metaopt_core.networks.network import Params

_GRADIENTS = 1e-7  # largest relative difference in float64
_LOSSES = 1e-4  # … of losses in float32


class NotTheSameWorkError(UserError):
    """A contender computes something different from the others."""


def check(workload: str, setting: Setting, contenders: Mapping[str, Factory], reference: str) -> dict[str, float]:
    """The relative difference of each contender's meta-gradient from the reference's, in float64, on the tasks of meta-step 0.

    Raises:
        NotTheSameWorkError: a gradient or a loss differs from the reference's by more than rounding.
    """
    batch = setting.batches(0, 1)[0]

    def found_by(name: str, dtype: torch.dtype) -> tuple[float, Params]:
        contender = contenders[name](setting, dtype)
        set_threads(contender)
        return contender.meta_gradient(in_dtype(batch, dtype))

    (loss, _), (_, gradient) = found_by(reference, torch.float32), found_by(reference, torch.float64)
    found = {}
    for name in contenders:
        if name == reference:
            continue
        (their_loss, _), (_, theirs) = found_by(name, torch.float32), found_by(name, torch.float64)
        found[name] = difference(theirs, gradient)
        if not found[name] <= _GRADIENTS:
            raise NotTheSameWorkError(
                f"{workload}: the meta-gradient of {name} is {found[name]:.1e} (relative, float64) from that of {reference}: "
                f"expected at most {_GRADIENTS:.0e}, so nothing was timed"
            )
        if not abs(their_loss - loss) <= _LOSSES * abs(loss):
            raise NotTheSameWorkError(
                f"{workload}: the loss of {name} is {their_loss:.7g} and that of {reference} {loss:.7g} (float32): expected a "
                f"relative difference of at most {_LOSSES:.0e}, so nothing was timed"
            )
    return found


def difference(a: Params, b: Params) -> float:
    """‖a − b‖ / ‖b‖ over all parameters together; infinite if names or shapes differ."""
    if {name: value.shape for name, value in a.items()} != {name: value.shape for name, value in b.items()}:
        return float("inf")
    return _norm([a[name] - b[name] for name in b]) / _norm(b.values())


def _norm(parts: Iterable[Tensor]) -> float:
    norm: float = torch.stack([part.double().norm() for part in parts]).norm().item()
    return norm
