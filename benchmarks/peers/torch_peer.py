"""What the PyTorch peers share: the network as a module, the losses, Adam and the outer loop."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.setting import Setting
from benchmarks.workloads import FILTERS, HIDDEN, OUTER_LR, MetaStep
from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.networks.network import Params

Task = tuple[Tensor, Tensor, Tensor, Tensor]
"""support_x [S, …], support_y, query_x [Q, …], query_y of one task."""


class TorchPeer(ABC):
    """A peer says how the meta-gradient gets into the parameters' `.grad`."""

    threads: tuple[int, ...]

    def __init__(self, setting: Setting, dtype: torch.dtype = torch.float32):
        meta_step = setting.meta_step
        self.setting = setting
        self.inner_lr, self.inner_steps = meta_step.inner_lr, meta_step.inner_steps
        self.loss: Callable[..., Tensor] = F.cross_entropy if meta_step.ways else F.mse_loss
        self.model = network(meta_step).to(dtype)
        with torch.no_grad():
            for name, value in _by_our_names(self.model):
                value.copy_(setting.initial[name])
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=OUTER_LR)
        self.threads = (torch.get_num_threads(),) if meta_step.ways else tuple(sorted({1, torch.get_num_threads()}, reverse=True))

    @abstractmethod
    def backward(self, batch: TaskBatch) -> Tensor:
        """Add the gradient of the mean query loss to the parameters' `.grad`; returns that loss."""

    def run(self, start: int, steps: int) -> None:
        for batch in self.setting.batches(start, steps):
            self.optimizer.zero_grad()
            self.backward(batch)
            self.optimizer.step()

    def meta_gradient(self, batch: TaskBatch) -> tuple[float, Params]:
        self.optimizer.zero_grad()
        loss = self.backward(batch).item()
        return loss, dict(_by_our_names(self.model, gradients=True))


def tasks(batch: TaskBatch) -> Iterator[Task]:
    """The tasks of a batch, one by one."""
    return zip(batch.support_x, batch.support_y, batch.query_x, batch.query_y, strict=True)


def network(meta_step: MetaStep) -> nn.Sequential:
    """The network of a meta-step; batch norm by the current batch only."""
    layers: list[nn.Module] = []
    if meta_step.ways is None:
        for inputs, units in zip((1, *HIDDEN), HIDDEN, strict=False):
            layers += [nn.Linear(inputs, units), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))
    for inputs in (1, FILTERS, FILTERS, FILTERS):
        layers += [
            nn.Conv2d(inputs, FILTERS, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(FILTERS, track_running_stats=False),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(FILTERS, meta_step.ways))


def _by_our_names(model: nn.Module, gradients: bool = False) -> Iterator[tuple[str, Tensor]]:
    """The parameters, or their gradients, under metaopt's names and as views in its shapes."""
    kinds: list[tuple[type[nn.Module], str, str, str]] = [
        (nn.Conv2d, "conv", "weight", "bias"),
        (nn.BatchNorm2d, "norm", "scale", "shift"),
        (nn.Linear, "layer", "weight", "bias"),
    ]
    convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
    for kind, prefix, weight, bias in kinds:
        for place, module in enumerate(found for found in model.modules() if isinstance(found, kind)):
            name = "linear" if convolutional and kind is nn.Linear else f"{prefix}{place}"
            for ending, parameter in ((weight, module.weight), (bias, module.bias)):
                if not isinstance(parameter, Tensor):
                    continue
                value = cast(Tensor, parameter.grad) if gradients else parameter
                if kind is nn.Conv2d:
                    value = value.permute(2, 3, 1, 0)
                if kind is nn.Linear:
                    value = value.t() if ending == "weight" else value[None]
                yield f"{name}.{ending}", value
