"""Trains a small sinusoid pipeline in a folder, going on from its checkpoints: the process that the tests kill.

python train_once.py FOLDER: writes FOLDER/maml.safetensors, pretrained.safetensors and history.json.
"""

import json
import sys
from pathlib import Path

from safetensors.torch import save_file

from metaopt_core.spec.pipeline import PipelineSpec
from tests.small import setting_of, train_all

SPEC = PipelineSpec.model_validate(
    {
        "name": "small",
        "generate": {"distribution": "sinusoid", "held_out": {"validation_tasks": 20, "test_tasks": 20}},
        "train": {
            "model": {"name": "mlp"},
            "iterations": 500,
            "shots": 5,
            "queries": 5,
            "inner": {"steps": 2},
            "outer": {"schedule": "cosine", "clip_norm": 10.0},
            "validation": {"every": 70, "steps": 3},
            "checkpoint_every": 0.02,
        },
    }
)


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    trained = train_all(setting_of(SPEC, folder), folder / "checkpoints")
    for phase, result in trained.items():
        save_file(result.params, folder / f"{phase}.safetensors")
    histories = {phase: (r.best_iteration, [(p.iteration, p.name, p.value) for p in r.history]) for phase, r in trained.items()}
    (folder / "history.json").write_text(json.dumps(histories))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
