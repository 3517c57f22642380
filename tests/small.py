"""A small classification pipeline on made-up pictures, for tests that need no real ones."""

import numpy as np

from metaopt_core.distributions.omniglot import CHARACTERS
from metaopt_core.distributions.omniglot.archives import Pictures
from metaopt_core.spec.pipeline import PipelineSpec

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
    """As many characters as Omniglot has, each a random pattern with a little noise on every drawing."""
    random = np.random.default_rng(0)
    pattern = random.integers(0, 2, (CHARACTERS, 1, 28, 28), dtype=np.uint8)
    flipped = random.random((CHARACTERS, 20, 28, 28), dtype=np.float32) < 0.05
    names = [f"character{index:04}" for index in range(CHARACTERS)]
    return Pictures((pattern ^ flipped) * np.uint8(255), ["noise"] * CHARACTERS, names)
