"""MAML and its family: what is trained is what the spec says, whatever the algorithm is called."""

from dataclasses import replace

import pytest
import torch

from metaopt_core.distributions.batch import Episode
from metaopt_core.meta import step_sizes
from metaopt_core.meta.learner import Learner
from metaopt_core.methods.by_gradient import ByGradient
from metaopt_core.methods.contract import Setting, compared, parameters_file
from metaopt_core.methods.maml import GradientBased
from metaopt_core.methods.safe import Safe
from metaopt_core.spec.pipeline import PipelineSpec
from tests.small import SMALL_CONV


def of_algorithm(setting: Setting, algorithm: str) -> Setting:
    body = SMALL_CONV.model_dump(exclude_unset=True)
    body["train"] |= {"algorithm": algorithm, "inner": {"lr": 0.1, "steps": 2}}
    return replace(setting, spec=PipelineSpec.model_validate(body))


@pytest.mark.parametrize(
    ("algorithm", "key", "learned_sizes"),
    [("maml", "maml", 0), ("fomaml", "fomaml", 0), ("meta-sgd", "meta-sgd", 1), ("maml++", "mamlpp", 2)],
)
def test_it_is_trained_from_the_networks_own_start_with_the_step_sizes_that_are_learned(
    algorithm: str, key: str, learned_sizes: int, noise_setting: Setting
) -> None:
    setting = of_algorithm(noise_setting, algorithm)
    phase = GradientBased().phase(setting)
    assert (phase.key, phase.keeps_snapshots, phase.iterations) == (key, True, setting.spec.train.iterations)
    params, sizes = step_sizes.split(phase.initial)
    expected = Learner.for_training(setting.spec, setting.shape).network.init(setting.spec.seed)
    assert all(torch.equal(params[name], value) for name, value in expected.items())
    assert {len(size) for size in sizes.values()} == ({learned_sizes} if learned_sizes else set())
    train = setting.spec.train
    batch = setting.distribution.train(Episode(train.ways, train.most_shots, train.queries), 0, 4)
    assert phase.objective(phase.initial, batch, 0).gradient.keys() == phase.initial.keys()


def test_safe_adaptation_is_of_the_same_parameters_where_it_can_be_had(noise_setting: Setting) -> None:
    params = {"maml": GradientBased().phase(noise_setting).initial}
    plain, safe = GradientBased().prepare(noise_setting, params), Safe().prepare(noise_setting, params)
    assert isinstance(plain, ByGradient)
    assert isinstance(safe, ByGradient)
    assert (plain.learner.adaptation, safe.learner.adaptation) == ("plain", "safe")
    assert all(torch.equal(plain.params[name], safe.params[name]) for name in plain.params)
    inner = noise_setting.spec.train.inner.model_copy(update={"rule": "adam"})
    train = noise_setting.spec.train.model_copy(update={"inner": inner})
    adam = replace(noise_setting, spec=noise_setting.spec.model_copy(update={"train": train}))
    assert Safe().prepare(adam, params) is None


def test_the_learned_parameters_are_in_one_file_whatever_they_are_called(noise_setting: Setting) -> None:
    setting = of_algorithm(noise_setting, "fomaml")
    files = {method.name: parameters_file(setting.spec, method) for method in compared(setting.spec) if method.trained}
    assert files == {"maml": "parameters.safetensors", "protonet": "protonet.safetensors", "pretrained": "pretrained.safetensors"}
