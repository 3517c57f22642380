"""learn2learn: `MAML(model).clone()` for each task, then `adapt`.

Version 0.2.0 is published only as source, and its extensions no longer compile on Python 3.11. Its MAML needs none of them, so the
source package is fetched with pip once, unpacked, and this one module imported from it.
"""

import importlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.peers.torch_peer import TorchPeer, tasks
from benchmarks.setting import Setting, cache
from metaopt_core.distributions.batch import TaskBatch

_VERSION = "0.2.0"


class Learn2Learn(TorchPeer):
    def __init__(self, setting: Setting, dtype: torch.dtype = torch.float32):
        super().__init__(setting, dtype)
        self.maml = MAML(self.model, lr=self.inner_lr)

    def backward(self, batch: TaskBatch) -> Tensor:
        total = torch.zeros(())
        for support_x, support_y, query_x, query_y in tasks(batch):
            adapted = self.maml.clone()
            for _ in range(self.inner_steps):
                adapted.adapt(self.loss(adapted(support_x), support_y))
            loss = self.loss(adapted(query_x), query_y) / len(batch)
            loss.backward()
            total = total + loss.detach()
        return total


def _source(folder: Path) -> Path:
    """The unpacked source package; raises ImportError if it can't be fetched."""
    unpacked = folder / f"learn2learn-{_VERSION}"
    if unpacked.is_dir():
        return unpacked
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"]
    command += ["--no-binary", "learn2learn", f"learn2learn=={_VERSION}", "--dest"]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as draft:
        try:
            subprocess.run([*command, draft], check=True, capture_output=True, timeout=300)
        except (subprocess.SubprocessError, OSError):
            raise ImportError(f"pip could not fetch the source package of learn2learn {_VERSION}") from None
        with tarfile.open(next(Path(draft).glob("*.tar.gz"))) as archive:
            archive.extractall(draft, filter="data")
        (Path(draft) / unpacked.name).replace(unpacked)
    return unpacked


def _import_maml() -> ModuleType:
    """learn2learn.algorithms.maml without what its packages' own __init__ import: two empty packages stand in for them."""
    source = _source(cache())
    for package in ("learn2learn", "learn2learn.algorithms"):
        stand_in = ModuleType(package)
        stand_in.__path__ = [str(source.joinpath(*package.split(".")))]
        sys.modules[package] = stand_in
    return importlib.import_module("learn2learn.algorithms.maml")


MAML = _import_maml().MAML
