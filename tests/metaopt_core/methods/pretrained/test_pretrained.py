"""Pre-training: one network for all classes of the meta-train split, of which a new task gets all but the last layer."""

from pathlib import Path

import torch

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.pretrained import Pretrained
from tests.metaopt_core.training.train_once import SPEC
from tests.small import setting_of


def test_in_classification_it_tells_all_classes_apart_and_hands_on_its_body_with_a_head_of_zeros(noise_setting: Setting) -> None:
    phase = Pretrained().phase(noise_setting)
    classes, ways = noise_setting.distribution.train_classes, noise_setting.spec.train.ways
    assert classes == 160  # 40 characters in four rotations
    assert phase.initial["linear.weight"].shape == (8, classes)
    assert phase.initial["linear.bias"].shape == (1, classes)
    adapted = phase.to_adapt(phase.initial)
    assert adapted["linear.weight"].shape == (8, ways)
    assert not adapted["linear.weight"].any()
    assert not adapted["linear.bias"].any()
    body = [name for name in adapted if not name.startswith("linear")]
    assert all(torch.equal(adapted[name], phase.initial[name]) for name in body)
    assert phase.initial["linear.weight"].any()  # what is trained stays as it is


def test_in_regression_it_hands_on_all_of_it(tmp_path: Path) -> None:
    phase = Pretrained().phase(setting_of(SPEC, tmp_path))
    adapted = phase.to_adapt(phase.initial)
    assert adapted.keys() == phase.initial.keys()
    assert all(adapted[name] is value for name, value in phase.initial.items())


def test_it_is_trained_for_as_long_as_the_spec_says(noise_setting: Setting) -> None:
    assert Pretrained().phase(noise_setting).iterations == noise_setting.spec.pretrain_iterations
