"""TorchOpt: MetaSGD steps the module itself; its state is taken before each task and put back after it."""

import torch
import torchopt
from torch import Tensor

from benchmarks.peers.torch_peer import TorchPeer, tasks
from metaopt_core.distributions.batch import TaskBatch


class TorchOpt(TorchPeer):
    def backward(self, batch: TaskBatch) -> Tensor:
        total = torch.zeros(())
        inner = torchopt.MetaSGD(self.model, lr=self.inner_lr)
        initial, fresh = (torchopt.extract_state_dict(part, by="reference") for part in (self.model, inner))
        for support_x, support_y, query_x, query_y in tasks(batch):
            for _ in range(self.inner_steps):
                inner.step(self.loss(self.model(support_x), support_y))
            loss = self.loss(self.model(query_x), query_y) / len(batch)
            loss.backward()
            total = total + loss.detach()
            torchopt.recover_state_dict(self.model, initial)
            torchopt.recover_state_dict(inner, fresh)
        return total
