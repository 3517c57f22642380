"""Every method that ships keeps the contract, on a regression and on a classification."""

import math
from dataclasses import replace

import pytest
import torch

from metaopt_core.distributions.batch import Episode
from metaopt_core.methods.contract import TOGETHER, Method, Setting, compared
from metaopt_core.networks.network import Params
from tests.metaopt_core.training.train_once import SPEC
from tests.small import phases_of, setting_of

STEPS = 2


@pytest.fixture(scope="module", params=["regression", "classification"])
def setting(request: pytest.FixtureRequest, noise_setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    if request.param == "classification":
        return noise_setting
    evaluated = SPEC.evaluate.model_copy(update={"steps": STEPS})
    return setting_of(SPEC.model_copy(update={"evaluate": evaluated}), tmp_path_factory.mktemp("sinusoids"))


@pytest.fixture(scope="module")
def trained(setting: Setting) -> dict[str, Params]:
    return {phase.key: phase.to_adapt(phase.initial) for phase in phases_of(setting)}


def test_a_phase_is_asked_of_those_that_are_trained_alone(setting: Setting) -> None:
    for method in compared(setting.spec):
        if method.trained:
            assert method.phase(setting).key == method.key(setting.spec.train)
        else:
            with pytest.raises(NotImplementedError):
                method.phase(setting)
    with pytest.raises(NotImplementedError):
        Method().prepare(setting, {})


def test_each_predicts_every_query_after_each_of_its_steps_in_whatever_chunks(setting: Setting, trained: dict[str, Params]) -> None:
    train = setting.spec.train
    tasks = setting.distribution.held_out("test", Episode(train.ways, train.most_shots, train.queries), 0, 4)
    outputs = setting.shape.outputs_for(train.ways)
    for method in compared(setting.spec):
        adapter = method.prepare(setting, trained)
        assert adapter is not None
        assert adapter.steps == (STEPS if method.takes_steps else 0)
        assert math.isfinite(adapter.inner_lr) == method.takes_steps
        assert adapter.tasks_at_once(tasks) >= 1
        found = [predictions[TOGETHER](tasks.query_x, None) for predictions in adapter.on(setting).adapted(tasks)]
        assert [len(each) for each in found] == [4] * (adapter.steps + 1)
        assert all(each.shape == (4, tasks.query_x.shape[1], outputs) for each in found)
        *_, last = adapter.adapted(tasks[1:3])
        torch.testing.assert_close(last[TOGETHER](tasks[1:3].query_x, None), found[-1][1:3], rtol=1e-4, atol=1e-4)


def test_each_is_ready_for_other_ways(noise_setting: Setting) -> None:
    trained = {phase.key: phase.to_adapt(phase.initial) for phase in phases_of(noise_setting)}
    train = noise_setting.spec.train.model_copy(update={"ways": 5})
    more = replace(noise_setting, spec=noise_setting.spec.model_copy(update={"train": train}))
    tasks = noise_setting.distribution.held_out("test", Episode(5, 1, 2), 0, 2)
    for method in compared(noise_setting.spec):
        adapter = method.prepare(noise_setting, trained)
        assert adapter is not None
        *_, last = adapter.on(more).adapted(tasks)
        assert last[TOGETHER](tasks.query_x, None).shape == (2, 10, 5)
