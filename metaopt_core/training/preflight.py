"""Checks before any stage runs that need PyTorch: whether the device exists, and whether the network fits the tasks."""

from metaopt_core.meta.learner import Learner, device_named
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.pipeline import PipelineSpec


def check(spec: PipelineSpec, shape: TaskShape | None = None) -> None:
    """Raise UserError for a missing device, and for a network that can't be built or run for tasks of a shape.

    shape: of the tasks; none means what the spec knows about it; if it knows nothing, the network is checked later.
    """
    device_named(spec.device)
    shape = shape or spec.generate.shape
    if shape is not None:
        Learner.for_training(spec, shape)
