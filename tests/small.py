"""Small pipelines for tests: a classification on made-up pictures, which needs no real ones, and what all of them go through."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt
from PIL import Image

from metaopt_core.distributions.batch import Episode, HeldOutSplit, TaskBatch, TaskDistribution, Tasks
from metaopt_core.distributions.contract import load, materialize, record
from metaopt_core.distributions.omniglot import OmniglotSpec
from metaopt_core.distributions.omniglot import drawing as omniglot
from metaopt_core.distributions.omniglot.archives import PARTS, SIDE, Pictures
from metaopt_core.distributions.omniglot.settings import CHARACTERS, DRAWINGS_PER_CHARACTER
from metaopt_core.methods.contract import Setting, compared
from metaopt_core.networks.network import Params
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.training.loop import Trained
from metaopt_core.training.phase import Phase, train

if TYPE_CHECKING:
    from metaopt_core.evaluation.protocol import Measured  # takes a second to import, and processes that only train don't need it

SMALL_CONV = PipelineSpec.model_validate(
    {
        "name": "small-conv",
        "generate": {
            "distribution": "omniglot",
            "characters": {"train": 40, "validation": 10, "test": 10},
            "held_out_ways": 5,
            "held_out": {"validation_tasks": 10, "test_tasks": 30},
        },
        "train": {
            "model": {"name": "conv4", "filters": 8},
            "iterations": 6,
            "meta_batch_size": 4,
            "ways": 3,
            "shots": 1,
            "queries": 2,
            "reduction": "sum_over_ways",
            "inner": {"lr": 0.1, "steps": 2},
            "validation": {"every": 3, "steps": 2},
        },
        "evaluate": {"steps": 2},
    }
)


def noise_pictures() -> Pictures:
    """As many characters and alphabets as Omniglot has; each character is a random pattern with a little noise on every drawing."""
    random = np.random.default_rng(0)
    pattern = random.integers(0, 2, (CHARACTERS, 1, 28, 28), dtype=np.uint8)
    flipped = random.random((CHARACTERS, 20, 28, 28), dtype=np.float32) < 0.05
    names = [f"character{index:04}" for index in range(CHARACTERS)]
    alphabets = [f"alphabet{index % 50:02}" for index in range(CHARACTERS)]
    return Pictures((pattern ^ flipped) * np.uint8(255), alphabets, names)


def noise_archives(folder: Path) -> Path:
    """Archives as Omniglot is published in, of made-up characters: patterns of squares, each with two kinds of drawings."""
    random = np.random.default_rng(0)
    for part in PARTS:
        with ZipFile(folder / part.archive, "w") as archive:
            for index in range(part.characters):
                pattern = random.random((7, 7)) < 0.3
                kinds = [png(pattern ^ (random.random((7, 7)) < share)) for share in (0.0, 0.1)]
                alphabet = f"alphabet_of_{part.name}_{index % part.alphabets:02}"
                place = f"{part.name}/{alphabet}/character{index // part.alphabets + 1:02}"
                for drawing in range(DRAWINGS_PER_CHARACTER):
                    archive.writestr(f"{place}/{index:04}_{drawing + 1:02}.png", kinds[drawing % 2])
    return folder


def png(ink: npt.NDArray[np.bool_]) -> bytes:
    """A drawing as Omniglot's files have it, of squares [rows, columns] with ink or without."""
    file = io.BytesIO()
    Image.fromarray(~ink).resize((SIDE, SIDE), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def setting_of(spec: PipelineSpec, folder: Path) -> Setting:
    """The pipeline with its distribution made in a folder and loaded from there; Omniglot's pictures are noise."""
    generate = spec.generate
    if isinstance(generate, OmniglotSpec):
        omniglot.materialize(generate, spec.data_seed, noise_pictures(), folder)
        record(generate, generate.shape, spec.data_seed, folder)
    else:
        materialize(generate, spec.data_seed, folder / "downloads", folder)
    distribution, shape = load(folder, spec.seed)
    return Setting(spec, shape, distribution)


def all_held_out(distribution: TaskDistribution, split: HeldOutSplit, episode: Episode) -> TaskBatch:
    """All tasks of a held-out split, in one batch."""
    return Tasks.held_out(distribution, split, episode).all()


def phases_of(setting: Setting) -> list[Phase]:
    """How each method that is trained is trained."""
    return [method.phase(setting) for method in compared(setting.spec) if method.trained]


def train_all(setting: Setting, checkpoints: Path, traces: Path | None = None) -> dict[str, Trained]:
    """Train every method that is trained, as `train` does."""
    return train(setting.spec, setting.shape, setting.distribution, phases_of(setting), checkpoints, traces=traces)


def evaluate_all(setting: Setting, trained: Mapping[str, Params]) -> "Measured":
    """Evaluate every method, as `evaluate` does."""
    from metaopt_core.evaluation.protocol import evaluate, prepare

    return evaluate(setting, prepare(setting, compared(setting.spec), trained))
