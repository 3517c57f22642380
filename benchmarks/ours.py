"""This project as a contender: the objects that `train` runs with, and its own step. All that knows our engine is in this file."""

import torch

from benchmarks.setting import Setting
from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta.parallel import one_thread
from metaopt_core.networks.network import Params
from metaopt_core.training.loop import _begin, _step
from metaopt_core.training.phases import _phase


class Ours:
    threads: tuple[int, ...] = ()  # it sees to them itself

    def __init__(self, setting: Setting, dtype: torch.dtype = torch.float32):
        phase = _phase("maml", setting.spec, setting.distribution)
        self._setting, self._training = setting, phase.training
        self._state = _begin(phase.training, {name: value.to(dtype) for name, value in phase.initial.items()})

    def run(self, start: int, steps: int) -> None:
        with one_thread():  # as in `meta.training`; chunks of tasks run side by side
            for batch in self._setting.batches(start, steps):
                _step(self._training, self._state, batch)
                self._state.iteration += 1

    def meta_gradient(self, batch: TaskBatch) -> tuple[float, Params]:
        self._training.objective.plan = None
        found = self._training.objective(self._state.params, batch, 0)
        return found.losses.mean().item(), found.gradient
