"""What computes a meta-gradient: compiled loops of our own, functions by torch.compile, or PyTorch's operations one by one."""

from typing import Literal

import torch

from metaopt_core import kernels
from metaopt_core.meta.learner import Learner, device_named
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.mlp import MLP
from metaopt_core.networks.resnet12 import ResNet12
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.pipeline import PipelineSpec

COMPILE_FROM_ITERATIONS = 20_000
"""Compiling takes about as long as it saves in this many iterations; both grow with the inner steps."""


def device_of(spec: PipelineSpec, shape: TaskShape) -> Literal["cpu", "cuda"] | None:
    """The device for which torch.compile compiles the meta-gradient, if the spec asks for it or it pays off; none if not.

    On a CPU, networks with their own compiled loops are faster with those.
    """
    device: Literal["cpu", "cuda"] = "cuda" if device_named(spec.device).type == "cuda" else "cpu"
    if spec.train.compile != "auto":
        return device if spec.train.compile == "on" else None
    return device if _compiles_well(spec, shape) and spec.train.iterations >= COMPILE_FROM_ITERATIONS else None


def _compiles_well(spec: PipelineSpec, shape: TaskShape) -> bool:
    """Whether compilation is known to pay off. For convolutions on a CPU and a user's own network it can take minutes."""
    network = Learner.for_training(spec, shape).network
    on_cpu = device_named(spec.device).type == "cpu"
    return not _has_loops(spec, shape) and isinstance(network, MLP if on_cpu else MLP | Conv4 | ResNet12)


def _has_loops(spec: PipelineSpec, shape: TaskShape) -> bool:
    network = Learner.for_training(spec, shape).network
    on_cpu = device_named(spec.device).type == "cpu"
    return on_cpu and kernels.usable(torch.empty(0)) and network.looped


def computed_by(spec: PipelineSpec, shape: TaskShape) -> str:
    """What computes the meta-gradient and why, in words."""
    asked = "as asked" if spec.train.compile != "auto" else None
    if device_of(spec, shape):
        return f"torch.compile ({asked or f'repaid by {spec.train.iterations} iterations'})"
    if _has_loops(spec, shape):
        return "the network's own compiled loops"
    if not _compiles_well(spec, shape):
        return f"PyTorch's operations one by one ({asked or 'torch.compile is not known to repay itself for this network'})"
    return f"PyTorch's operations one by one ({asked or f'too few iterations to repay torch.compile: {spec.train.iterations}'})"
