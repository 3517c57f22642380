"""Methods with a head in closed form go through training, checkpoints, evaluation and the command's reports like all others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metaopt_core.distributions.batch import Episode, Tasks
from metaopt_core.methods.by_gradient import ByGradient
from metaopt_core.methods.contract import DEVIATION, TOGETHER, Setting, compared
from metaopt_core.reporting.facts import asked
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.training import loop
from metaopt_core.training.phase import training_of
from tests.metaopt_core.training.train_once import SPEC
from tests.small import SMALL_CONV, evaluate_all, phases_of, setting_of, train_all


def with_algorithm(spec: PipelineSpec, algorithm: str, **train: object) -> PipelineSpec:
    body = spec.model_dump(exclude_unset=True)
    body["train"] = {key: value for key, value in body["train"].items() if key not in {"inner", "baselines"}}
    body["train"] |= {"algorithm": algorithm, "iterations": 60, "baselines": []} | train
    return PipelineSpec.model_validate(body)


@pytest.fixture(scope="module")
def sinusoids(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return setting_of(SPEC, tmp_path_factory.mktemp("sinusoids"))


@pytest.mark.parametrize(
    ("algorithm", "key", "label"),
    [("ridge", "r2d2", "R2-D2"), ("r2d2", "r2d2", "R2-D2"), ("dkt", "dkt", "DKT"), ("adkf", "adkf", "ADKF")],
)
def test_a_name_stands_for_one_method_which_safe_and_gradient_steps_are_not(algorithm: str, key: str, label: str) -> None:
    spec = with_algorithm(SPEC, algorithm)
    assert [method.key(spec.train) for method in compared(spec) if not method.baseline] == [key]
    assert (spec.learned.label(spec.train), spec.model_method) == (label, key)
    assert "in closed form" in asked(spec, "cpu", 5)["Inner loop"]


@pytest.mark.parametrize(("algorithm", "iterations"), [("ridge", 200), ("dkt", 30), ("adkf", 30)])
def test_what_is_learned_is_better_after_the_solution_than_before(
    algorithm: str, iterations: int, sinusoids: Setting, tmp_path: Path
) -> None:
    setting = replace(sinusoids, spec=with_algorithm(SPEC, algorithm, outer={"lr": 0.01}, iterations=iterations))
    trained = train_all(setting, tmp_path)
    key = setting.spec.learned.key(setting.spec.train)
    table = evaluate_all(setting, {key: trained[key].params}).tasks
    rows = table[table["method"] == key]
    assert rows["loss_1"].mean() < 0.8 * rows["loss_0"].mean()
    assert (rows["loss_1"] == rows[f"loss_{setting.spec.evaluate.steps}"]).all()
    assert rows["inner_lr"].isna().all()
    unadapted = table[table["method"] == "unadapted"]
    np.testing.assert_array_equal(unadapted["loss_0"], rows["loss_0"])


def test_deviations_are_those_of_a_process_and_cover_the_targets(sinusoids: Setting, tmp_path: Path) -> None:
    for algorithm, there in (("dkt", True), ("ridge", False)):
        setting = replace(sinusoids, spec=with_algorithm(SPEC, algorithm, outer={"lr": 0.01}))
        method = setting.spec.learned
        key = method.key(setting.spec.train)
        trained = {key: result.params for key, result in train_all(setting, tmp_path / algorithm).items()}
        adapter = next(one for one in compared(setting.spec) if one.key(setting.spec.train) == key).prepare(setting, trained)
        assert isinstance(adapter, ByGradient)
        tasks = Tasks.held_out(setting.distribution, "test", Episode(None, 5, 50)).all()
        before, after = adapter.adapted(tasks)
        assert (DEVIATION in after) == (DEVIATION in before) == there
        if there:
            deviation, prior = (found[DEVIATION](tasks.query_x, None) for found in (after, before))
            assert deviation.shape == tasks.query_y.shape
            assert (deviation <= prior + 1e-5).all()  # a support set makes nobody less sure
            z = (after[TOGETHER](tasks.query_x, None) - tasks.query_y).abs() / deviation
            assert 0.3 < (z < 1).float().mean() <= 1


@pytest.mark.parametrize("algorithm", ["ridge", "dkt"])
def test_classes_are_told_apart_and_so_are_fewer_of_them(algorithm: str, noise_setting: Setting, tmp_path: Path) -> None:
    body = SMALL_CONV.model_dump(exclude_unset=True) | {"evaluate": {"steps": 1, "shifted": {"two": {"ways": 2}}}}
    changes = {"model": {"name": "conv4", "filters": 4, "normalization": "layer"}, "outer": {"lr": 0.01}, "iterations": 20}
    setting = replace(noise_setting, spec=with_algorithm(PipelineSpec.model_validate(body), algorithm, **changes))
    trained = {key: result.params for key, result in train_all(setting, tmp_path).items()}
    table = evaluate_all(setting, trained).tasks
    key = setting.spec.learned.key(setting.spec.train)
    for variant, chance in (("in-distribution", 1 / 3), ("two", 1 / 2)):
        rows = table[(table["method"] == key) & (table["variant"] == variant)]
        assert rows["accuracy_1"].mean() > chance + 0.2


@pytest.mark.parametrize("algorithm", ["ridge", "adkf"])
def test_no_tensor_of_training_is_left_behind_on_the_cpu(algorithm: str, sinusoids: Setting) -> None:
    setting = replace(sinusoids, spec=with_algorithm(SPEC, algorithm))
    meta = torch.device("meta")
    (phase,) = phases_of(setting)
    training = training_of(setting.spec, setting.shape, setting.distribution, phase)
    training = replace(training, device=meta, distribution=setting.distribution.on(meta))
    state = loop.begin(training, phase.initial)
    loop.step(training, state, next(loop._batches(training, 0)))
    assert {value.device.type for value in [*state.params.values(), state.losses]} == {"meta"}
