"""A checkpoint gives back what was saved, or says what is wrong with it."""

import json
import math
from pathlib import Path

import pytest
import torch

from metaopt_core.errors import UserError
from metaopt_core.training.checkpoint import load_checkpoint, save_checkpoint


def test_a_damaged_checkpoint_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "maml.safetensors"
    save_checkpoint(path, {"w": torch.ones(1000)}, {"iteration": 3})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"maml.safetensors: not a readable checkpoint .* delete it to train from the beginning"):
        load_checkpoint(path)


def test_a_checkpoint_gives_back_what_was_saved(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", {"w": torch.arange(3.0)}, {"best_loss": math.inf, "history": [[1, "loss", 0.1]]})
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded is not None
    assert torch.equal(loaded[0]["w"], torch.arange(3.0))
    assert json.loads(json.dumps(loaded[1])) == {"best_loss": math.inf, "history": [[1, "loss", 0.1]]}
