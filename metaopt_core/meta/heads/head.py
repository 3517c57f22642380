"""What heads in closed form have in common: the rows that they see, and the prior mean that a support set moves them from.

A head works on features [tasks, rows, width], which the network without its last layer makes with parameters that all tasks share.
Its linear algebra is in float64: small, and ill-conditioned where little noise is assumed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt_core.networks.network import Network, Params

PREFIX = "head."
"""Of the names of a head's own meta-parameters."""

SOLVED = "solved."
"""Of the names of what a task's support set determined, each [tasks, …]."""

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Outputs, targets and weights of queries → a loss a task."""


@dataclass(frozen=True)
class Rows:
    """features [tasks, rows, width]; y [tasks, rows, outputs], or [tasks, rows] class labels; weight [tasks, rows], none where all
    are alike."""

    features: Tensor
    y: Tensor
    weight: Tensor | None

    def weights(self) -> Tensor:
        """Of the rows, [tasks, rows, 1] in float64."""
        if self.weight is None:
            return self.features.new_ones(*self.features.shape[:2], 1, dtype=torch.float64)
        return self.weight.double()[..., None]


@dataclass(frozen=True)
class Head(ABC):
    """A last layer that is solved for.

    network: whose features it takes. pooled: whether the prior mean is the network's own last layer, which all tasks share, so
    that what a support set determines is the residual; else it is a constant, learned alike.
    """

    network: Network
    classification: bool
    pooled: bool

    def initial(self, params: Params) -> Params:
        """Meta-parameters to begin with, of the network's initial ones: its body, the prior mean, and the head's own."""
        if self.pooled:
            return params | self._own()
        body = {name: value for name, value in params.items() if name not in self.network.head}
        return body | {f"{PREFIX}mean": torch.zeros(1, self.network.outputs)} | self._own()

    @abstractmethod
    def _own(self) -> Params:
        """The head's own meta-parameters to begin with, apart from the prior mean."""

    @abstractmethod
    def solve(self, params: Mapping[str, Tensor], support: Rows) -> Params:
        """What the support sets determine, by names that begin with SOLVED."""

    @abstractmethod
    def outputs(self, params: Mapping[str, Tensor], features: Tensor) -> Tensor:
        """The predictions [tasks, queries, outputs] (of classes: logits) for queries' features by what `solve` found; by the
        prior alone where nothing was solved."""

    @property
    def predicts_distributions(self) -> bool:
        """Whether predictions have standard deviations."""
        return False

    def deviation(self, params: Mapping[str, Tensor], features: Tensor) -> Tensor:
        """The standard deviations [tasks, queries, outputs] of predicted targets, for heads that predict distributions."""
        raise NotImplementedError

    @abstractmethod
    def losses(self, params: Mapping[str, Tensor], support: Rows, query: Rows, loss: Loss) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Each task's loss [tasks], which training descends on, and further numbers [tasks] by the names of their curves.

        loss: the loss of predictions by which methods are compared.
        """

    def prior(self, params: Mapping[str, Tensor], features: Tensor) -> Tensor:
        """The prior mean [tasks, rows, outputs], in float64."""
        if self.pooled:
            return self.network.last(params, features).double()
        mean = params[f"{PREFIX}mean"].double()
        return mean.expand(*features.shape[:2], mean.shape[1])

    def targets(self, y: Tensor) -> Tensor:
        """Targets as real numbers [tasks, rows, outputs], in float64; of a class, 1 for its output and −1 for the others."""
        if not self.classification:
            return y.double()
        labels = torch.arange(self.network.outputs, device=y.device)
        return 2 * (y[..., None] == labels).double() - 1
