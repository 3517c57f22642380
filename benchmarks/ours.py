"""This project as a contender: the objects that `train` runs with, and its own step. Only this file knows our engine."""

import torch

from benchmarks.setting import Setting
from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta.parallel import one_thread
from metaopt_core.methods.contract import Setting as Tasks
from metaopt_core.methods.contract import compared
from metaopt_core.networks.network import Params
from metaopt_core.training.loop import begin, step
from metaopt_core.training.phase import training_of


class Ours:
    threads: tuple[int, ...] = ()  # it manages them itself

    def __init__(self, setting: Setting, dtype: torch.dtype = torch.float32):
        spec, shape, distribution = setting.spec, setting.shape, setting.distribution
        phase = compared(spec)[0].phase(Tasks(spec, shape, distribution))
        self._setting, self._training = setting, training_of(spec, shape, distribution, phase)
        self._state = begin(self._training, {name: value.to(dtype) for name, value in phase.initial.items()})

    def run(self, start: int, steps: int) -> None:
        with one_thread():  # as in `training.loop`; chunks of tasks run in parallel
            for batch in self._setting.batches(start, steps):
                step(self._training, self._state, batch)
                self._state.iteration += 1

    def meta_gradient(self, batch: TaskBatch) -> tuple[float, Params]:
        found = self._training.objective(self._state.params, batch, 0)
        return found.losses.mean().item(), found.gradient
