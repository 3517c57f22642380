"""What can be known before any stage runs, and only with PyTorch: whether the device is there, and the network fits the tasks."""

from metaopt_core.meta.learner import Learner, device_named
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.pipeline import PipelineSpec


def check(spec: PipelineSpec, shape: TaskShape | None = None) -> None:
    """Raise UserError for a device that isn't there, and for a network that can't be made or computed for tasks of a shape.

    shape: of the tasks; none means what the spec knows of it, and where it knows nothing, the network is for later.
    """
    device_named(spec.device)
    shape = shape or spec.generate.shape
    if shape is not None:
        Learner.for_training(spec, shape)
