"""Checkpoints of a training: one safetensors file, its tensors beside a JSON text in its header, replaced by one rename."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from metaopt_core.errors import UserError


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-valued state, so that the file is there whole or as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    with draft.open("wb") as file:
        file.write(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, {"state": json.dumps(state)}))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors and the state of a checkpoint, or none where there is no file."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["state"])  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a readable checkpoint ({error}): delete it to train from the beginning") from None
