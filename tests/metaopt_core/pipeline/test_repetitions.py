"""Two kinds of repetition: of the training, and of the data."""

import pytest
from pydantic import ValidationError

from metaopt_core.pipeline.repetitions import named, repeats
from tests.made_outputs import sinusoid_spec


def test_seeds_train_again_on_the_same_data() -> None:
    spec = sinusoid_spec("waves", seed=3, seeds=3)
    assert [(one.seed, one.data_seed) for one in repeats(spec)] == [(3, 3), (4, 3), (5, 3)]
    assert [named(spec, one) for one in repeats(spec)] == ["seed 3", "seed 4", "seed 5"]


def test_the_seed_of_the_data_can_be_chosen() -> None:
    spec = sinusoid_spec("waves", seed=3, seeds=2, generate={"distribution": "sinusoid", "seed": 8})
    assert [(one.seed, one.data_seed) for one in repeats(spec)] == [(3, 8), (4, 8)]


def test_splits_repeat_the_data() -> None:
    spec = sinusoid_spec("waves", seed=3, splits=2)
    assert [(one.seed, one.data_seed) for one in repeats(spec)] == [(3, 3), (3, 4)]
    assert [named(spec, one) for one in repeats(spec)] == ["split 3", "split 4"]


def test_once_is_the_pipeline_itself() -> None:
    spec = sinusoid_spec("waves", seed=3)
    assert repeats(spec) == [spec]
    assert named(spec, spec) == ""


def test_the_two_kinds_are_not_mixed() -> None:
    with pytest.raises(ValidationError, match="two kinds of repetition"):
        sinusoid_spec("waves", seeds=2, splits=2)
