"""Simple models on the features of the pre-trained network."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import Ridge

from metaopt_core.distributions.batch import Episode, Tasks
from metaopt_core.meta.learner import Learner
from metaopt_core.methods import linear, on_features
from metaopt_core.methods.contract import TOGETHER, Method, Setting, compared
from metaopt_core.methods.from_support import Choices
from metaopt_core.methods.support import Support
from metaopt_core.networks.network import Params
from metaopt_core.spec.pipeline import PipelineSpec
from tests.small import SMALL_CONV, phases_of, setting_of

BODY = {
    "name": "assays",
    "generate": {"distribution": "tests.toys.assays:Assays", "held_out": {"validation_tasks": 5, "test_tasks": 4}},
    "train": {
        "model": {"name": "mlp", "hidden": [8, 6]},
        "iterations": 1,
        "shots": 8,
        "queries": 10,
        "baselines": ["pretrained", "pretrained_ridge"],
    },
}


def initial(setting: Setting) -> Mapping[str, Params]:
    return {phase.key: phase.to_adapt(phase.initial) for phase in phases_of(setting)}


def named(setting: Setting, name: str) -> Method:
    return next(method for method in compared(setting.spec) if method.name == name)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return setting_of(PipelineSpec.model_validate(BODY), tmp_path_factory.mktemp("assays"))


def test_a_ridge_head_is_scikit_learns_on_the_features(setting: Setting) -> None:
    tasks = Tasks.held_out(setting.distribution, "test", Episode(None, 8, 5)).all()
    params = initial(setting)["pretrained"]
    network = Learner.from_spec(setting.spec, setting.shape).as_baseline().network
    model = linear.alone(Choices(torch.ones(1), torch.tensor([0.5], dtype=torch.float64)))
    found, _ = on_features.on(network, params, (4,), model)(Support.of(tasks), tasks.query_x.double())
    for task in range(len(tasks)):
        support, query = (network.features(params, x[task : task + 1])[0].double() for x in (tasks.support_x, tasks.query_x))
        size = support.square().mean().sqrt()
        y = Support.of(tasks).y[task].numpy()
        expected = Ridge(alpha=0.5).fit((support / size).numpy(), y).predict((query / size).numpy())
        assert found[task].flatten().numpy() == pytest.approx(expected.flatten(), rel=1e-4)


def test_it_is_left_out_where_nothing_was_pre_trained(setting: Setting) -> None:
    method = named(setting, "pretrained_ridge")
    assert method.prepare(setting, {}) is None
    assert method.prepare(setting, initial(setting)) is not None


@pytest.mark.parametrize("name", ["pretrained_logistic", "pretrained_centroid"])
def test_pictures_are_told_apart_by_a_simple_model_on_features(name: str, noise_setting: Setting) -> None:
    train = SMALL_CONV.train.model_copy(update={"baselines": ("pretrained", name)})
    setting = replace(noise_setting, spec=noise_setting.spec.model_copy(update={"train": train}))
    adapter = named(setting, name).prepare(setting, initial(setting))
    assert adapter is not None
    tasks = Tasks.held_out(setting.distribution, "test", Episode(3, 1, 2)).all()
    outputs = next(iter(adapter.adapted(tasks)))[TOGETHER](tasks.query_x, None)
    assert outputs.shape == (*tasks.query_y.shape, 3)
    assert float((outputs.argmax(-1) == tasks.query_y).float().mean()) > 0.6  # patterns with little noise
