"""Checkpoints of a training: one safetensors file, its tensors beside a JSON text in its header, replaced by one rename.

Planning asks how far a training run is, so PyTorch is imported only where tensors are used.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from metaopt_core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def save_checkpoint(path: Path, tensors: "Mapping[str, Tensor]", state: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-valued state; the file is replaced whole or not at all."""
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    with draft.open("wb") as file:
        file.write(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, {"state": json.dumps(state)}))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def load_checkpoint(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any]] | None":
    """The tensors and the state of a checkpoint; none if there is no file."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["state"])  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a readable checkpoint ({error}): delete it to train from the beginning") from None


def reached(folder: Path) -> str | None:
    """How far the training run with checkpoints in a folder has got, in words: the latest iteration, and the phase if it is not the
    first. None if it has not begun, or no checkpoint can be read."""
    checkpoints = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    if not checkpoints:
        return None
    try:
        with safe_open(checkpoints[-1], "np") as file:
            iteration = json.loads(file.metadata()["state"])["iteration"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    return f"iteration {iteration:,}" + (f" of {checkpoints[-1].stem}" if len(checkpoints) > 1 else "")
