"""The interface of a contender, and where to find each."""

import importlib
from collections.abc import Sequence
from typing import Protocol

import torch

from benchmarks.setting import Setting
from benchmarks.workloads import OURS
from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.networks.network import Params


class Contender(Protocol):
    """Meta-training by one library, from the setting's initial parameters."""

    threads: tuple[int, ...]
    """PyTorch's threads: one number, or several to try for the fastest (the first if untried); empty if it doesn't use PyTorch."""

    def run(self, start: int, steps: int) -> None:
        """Make the meta-steps start … start+steps−1: draw their tasks together, then meta-gradient and Adam for each."""

    def meta_gradient(self, batch: TaskBatch) -> tuple[float, Params]:
        """Mean query loss after adaptation and its gradient, by metaopt's names and in its shapes; the parameters stay."""


def set_threads(contender: Contender) -> None:
    """Set its number of threads before it computes anything, because compiled code may depend on it."""
    if contender.threads:
        torch.set_num_threads(contender.threads[0])


class Factory(Protocol):
    def __call__(self, setting: Setting, dtype: torch.dtype = torch.float32) -> Contender: ...


_WHERE = {
    OURS: "benchmarks.ours:Ours",
    "higher": "benchmarks.peers.higher_loop:Higher",
    "torchopt": "benchmarks.peers.torchopt_loop:TorchOpt",
    "learn2learn": "benchmarks.peers.learn2learn_loop:Learn2Learn",
    "torch.func": "benchmarks.peers.torch_func:TorchFunc",
    "jax": "benchmarks.peers.jax_scan:JaxScan",
}


def load(name: str) -> Factory:
    """The contender's class. Raises ImportError if its library is missing."""
    module, _, attribute = _WHERE[name].partition(":")
    factory: Factory = getattr(importlib.import_module(module), attribute)
    return factory


def available(names: Sequence[str]) -> tuple[dict[str, Factory], list[str]]:
    """The named contenders that are available, and one line about each of the others."""
    found, missing = {}, []
    for name in names:
        try:
            found[name] = load(name)
        except ImportError as error:
            missing.append(f"{name} is skipped: {error}")
    return found, missing
