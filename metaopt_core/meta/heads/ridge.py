"""Ridge regression on learned features, differentiated through its solution (Bertinetto, Henriques, Torr, Vedaldi 2019).

With features Φ [rows, width], residuals R of the prior mean and weights D of the rows (section 3, equations 5 to 7):

    W = (ΦᵀDΦ + λI)⁻¹ ΦᵀDR  =  ΦᵀD^½ (D^½ΦΦᵀD^½ + λI)⁻¹ D^½R

and an output is the prior mean plus α φ(x) W. λ and α are learned; of classes, targets are ±1 and α is the temperature. The second
form (Woodbury) is the smaller one where features outnumber rows.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from metaopt_core.meta.heads.algebra import solve
from metaopt_core.meta.heads.head import PREFIX, SOLVED, Head, Loss, Rows
from metaopt_core.networks.network import Params


class Ridge(Head):
    """See the top of this file. Features count as divided by √width, so that λ means the same for every network."""

    def _own(self) -> Params:
        return {f"{PREFIX}log_ridge": torch.full((1,), -2.0), f"{PREFIX}log_scale": torch.zeros(1)}

    def solve(self, params: Mapping[str, Tensor], support: Rows) -> Params:
        return {f"{SOLVED}weights": self._weights(params, support)}

    def outputs(self, params: Mapping[str, Tensor], features: Tensor) -> Tensor:
        found, solved = self.prior(params, features), params.get(f"{SOLVED}weights")
        if solved is not None:
            found = found + params[f"{PREFIX}log_scale"].double().exp() * (self._scaled(features) @ solved)
        return found.to(features.dtype)

    def losses(self, params: Mapping[str, Tensor], support: Rows, query: Rows, loss: Loss) -> tuple[Tensor, Mapping[str, Tensor]]:
        outputs = self.outputs({**params, **self.solve(params, support)}, query.features)
        return loss(outputs, query.y, query.weight), {}

    def _scaled(self, features: Tensor) -> Tensor:
        return features.double() / math.sqrt(features.shape[2])

    def _weights(self, params: Mapping[str, Tensor], support: Rows) -> Tensor:
        """W [tasks, width, outputs]"""
        root = support.weights().sqrt()
        residual = root * (self.targets(support.y) - self.prior(params, support.features))
        phi = root * self._scaled(support.features)
        ridge, (rows, width) = params[f"{PREFIX}log_ridge"].double().exp(), phi.shape[1:]
        if width > rows:
            return phi.mT @ solve(phi @ phi.mT + ridge * _identity(rows, phi), residual)
        return solve(phi.mT @ phi + ridge * _identity(width, phi), phi.mT @ residual)


def _identity(size: int, like: Tensor) -> Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device)
