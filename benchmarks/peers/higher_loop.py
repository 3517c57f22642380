"""higher: a functional copy of the module and a differentiable optimizer for each task."""

import higher
import torch
from torch import Tensor

from benchmarks.peers.torch_peer import TorchPeer, tasks
from metaopt_core.distributions.batch import TaskBatch


class Higher(TorchPeer):
    def backward(self, batch: TaskBatch) -> Tensor:
        total = torch.zeros(())
        inner = torch.optim.SGD(self.model.parameters(), lr=self.inner_lr)
        for support_x, support_y, query_x, query_y in tasks(batch):
            with higher.innerloop_ctx(self.model, inner, copy_initial_weights=False) as (adapted, step):
                for _ in range(self.inner_steps):
                    step.step(self.loss(adapted(support_x), support_y))
                loss = self.loss(adapted(query_x), query_y) / len(batch)
                loss.backward()
            total = total + loss.detach()
        return total
