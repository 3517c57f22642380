"""Training goes on where it was, after a kill at any moment and after Ctrl-C, and comes to the same bits."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from metaopt_core.meta.learner import Learner
from metaopt_core.methods.contract import Setting
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.training import loop
from metaopt_core.training.checkpoint import load_checkpoint
from metaopt_core.training.phase import training_of
from tests.metaopt_core.training.train_once import SPEC
from tests.small import all_held_out, evaluate_all, phases_of, setting_of, train_all

RESULTS = ("maml.safetensors", "pretrained.safetensors", "history.json")


@pytest.fixture(scope="module")
def sinusoids(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return setting_of(SPEC, tmp_path_factory.mktemp("sinusoids"))


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.metaopt_core.training.train_once", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def iteration_reached(folder: Path, phase: str) -> int:
    loaded = load_checkpoint(folder / "checkpoints" / f"{phase}.safetensors")
    return loaded[1]["iteration"] if loaded else 0


def wait_for(folder: Path, phase: str, iteration: int, process: subprocess.Popen[str]) -> None:
    while iteration_reached(folder, phase) < iteration:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.005)


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert start(folder).wait() == 0
    return results(folder)


def test_two_runs_of_one_seed_are_the_same_bytes(uninterrupted: dict[str, bytes], tmp_path: Path) -> None:
    assert start(tmp_path).wait() == 0
    assert results(tmp_path) == uninterrupted


def test_killed_again_and_again_the_result_is_the_same_bytes(uninterrupted: dict[str, bytes], tmp_path: Path) -> None:
    for phase, iteration in (("maml", 1), ("maml", 150), ("maml", 400), ("pretrained", 200)):
        process = start(tmp_path)
        wait_for(tmp_path, phase, iteration, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / RESULTS[-1]).exists()
    assert start(tmp_path).wait() == 0
    assert results(tmp_path) == uninterrupted


def test_a_terminated_run_saves_where_it_is_and_goes_on(uninterrupted: dict[str, bytes], tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for(tmp_path, "maml", 1, process)
    before = iteration_reached(tmp_path, "maml")
    process.send_signal(signal.SIGTERM)
    assert process.wait() != 0
    assert before <= iteration_reached(tmp_path, "maml") < 500
    assert start(tmp_path).wait() == 0
    assert results(tmp_path) == uninterrupted


def test_another_seed_gives_other_parameters(sinusoids: Setting, tmp_path: Path) -> None:
    short = SPEC.model_copy(update={"train": SPEC.train.model_copy(update={"iterations": 3})})
    first, other = (
        train_all(replace(sinusoids, spec=spec), tmp_path / str(spec.seed))["maml"].params
        for spec in (short, short.model_copy(update={"seed": 1}))
    )
    assert not torch.equal(first["layer0.weight"], other["layer0.weight"])


def test_training_lowers_the_validation_loss_and_keeps_the_best(sinusoids: Setting, tmp_path: Path) -> None:
    trained = train_all(sinusoids, tmp_path / "checkpoints")["maml"]
    validations = {r.iteration: r.value for r in trained.history if r.name == "validation_loss"}
    assert list(validations) == [70, 140, 210, 280, 350, 420, 490, 500]
    assert validations[trained.best_iteration] == min(validations.values()) < 0.8 * validations[70]


def small_mlp(sinusoids: Setting, compiled: Literal["on", "off"] = "off") -> Setting:
    return with_train(sinusoids, iterations=60, compile=compiled)


def with_train(setting: Setting, **changes: Any) -> Setting:
    """The setting with other values under `train`, unchecked."""
    spec = setting.spec
    return replace(setting, spec=spec.model_copy(update={"train": spec.train.model_copy(update=changes)}))


def test_learned_step_sizes_stay_within_their_bounds(sinusoids: Setting, tmp_path: Path) -> None:
    small = small_mlp(sinusoids)
    for bounds in (None, (0.0095, 0.0105)):
        inner = {"lr": 0.01, "steps": 3, "learned_lr": "per_parameter", "lr_bounds": bounds}
        body = small.spec.model_dump() | {"train": small.spec.train.model_dump() | {"inner": inner, "baselines": []}}
        bounded = replace(small, spec=PipelineSpec.model_validate(body))
        params = train_all(bounded, tmp_path / str(bounds))["maml"].params
        sizes = torch.cat([value.flatten() for name, value in params.items() if name.startswith("inner_lr.")])
        assert (sizes.min().item() < 0.00949) == (sizes.max().item() > 0.01051) == (bounds is None)
        assert sizes.unique().numel() > 10


def test_every_step_learns_a_normalization_of_its_own_and_is_judged_by_it(noise_setting: Setting, tmp_path: Path) -> None:
    small = noise_setting.spec
    changes = {
        "algorithm": "maml++",
        "model": {"name": "conv4", "filters": 8, "normalization": "per_step"},
        "baselines": ["pretrained"],
    }
    body = small.model_dump() | {"train": small.train.model_dump() | changes | {"outer_loss": "multi_step"}}
    setting = replace(noise_setting, spec=PipelineSpec.model_validate(body))
    trained = {name: result.params for name, result in train_all(setting, tmp_path / "checkpoints").items()}
    learned = setting.spec.learned.key(setting.spec.train)
    first, second = trained[learned]["norm3.scale"]
    assert not torch.equal(first, second)
    assert trained["pretrained"]["norm3.scale"].shape == (8,)
    table = evaluate_all(setting, trained).tasks
    assert list(table["method"].unique()) == [learned, "pretrained", "random", "unadapted"]  # not made safe
    means = table.groupby("method")
    accuracy, alone, collected = (means[f"{name}"].mean() for name in ("accuracy_2", "inductive_accuracy", "collected_accuracy"))
    assert accuracy[learned] > 1 / 3
    assert set(alone.dropna().index) == {learned, "pretrained", "random", "unadapted"}
    assert set(collected.dropna().index) == {learned, "unadapted"}


class PowerCutError(Exception):
    """The power goes."""


@pytest.mark.parametrize("kind", ["mlp", "compiled mlp", "conv4"])
def test_a_resumed_training_does_the_iterations_that_are_left_and_ends_with_the_same_bits(
    kind: str, sinusoids: Setting, noise_setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = noise_setting if kind == "conv4" else small_mlp(sinusoids, "on" if kind == "compiled mlp" else "off")
    setting = with_train(setting, checkpoint_every=1e-9)  # after every iteration
    whole = train_all(setting, tmp_path / "whole")

    steps = 0
    step = loop.step

    def counted(*arguments: Any) -> None:
        nonlocal steps
        if steps == cut:
            raise PowerCutError
        steps += 1
        step(*arguments)

    monkeypatch.setattr(loop, "step", counted)
    iterations = [phase.iterations for phase in phases_of(setting)]
    middle, second_phase = iterations[0] // 2, iterations[0] + 2
    for cut in [middle] if kind == "compiled mlp" else [1, middle, second_phase]:  # each start compiles anew
        with pytest.raises(PowerCutError):
            train_all(setting, tmp_path / "cut")
        assert steps == cut
    cut = -1
    resumed = train_all(setting, tmp_path / "cut")
    assert steps == sum(iterations)  # none is done twice
    assert list(resumed) == list(whole)
    for phase, result in whole.items():
        points, expected = ([(r.iteration, r.name, r.value) for r in of.history] for of in (resumed[phase], result))
        assert points == expected
        assert resumed[phase].best_iteration == result.best_iteration
        assert all(torch.equal(resumed[phase].params[name], value) for name, value in result.params.items())


@pytest.mark.parametrize("learned", ["none", "per_layer_and_step"])
@pytest.mark.parametrize("kind", ["mlp", "conv4"])
def test_no_tensor_of_training_or_evaluation_is_left_behind_on_the_cpu(
    kind: str, learned: Any, sinusoids: Setting, noise_setting: Setting
) -> None:
    """On the meta device nothing is computed, but an operation with a tensor from elsewhere fails as it would on a GPU."""
    setting = noise_setting if kind == "conv4" else small_mlp(sinusoids)
    setting = with_train(setting, inner=setting.spec.train.inner.model_copy(update={"learned_lr": learned}))
    spec, shape, meta = setting.spec, setting.shape, torch.device("meta")
    phases = phases_of(setting)
    assert [phase.key for phase in phases] == ["maml", "protonet", "pretrained"] if kind == "conv4" else ["maml", "pretrained"]
    for phase in phases:
        training = training_of(spec, shape, setting.distribution, phase)
        training = replace(training, device=meta, distribution=setting.distribution.on(meta))
        state = loop.begin(training, phase.initial)
        loop.step(training, state, next(loop._batches(training, 0)))
        assert {value.device.type for value in [*state.params.values(), state.adam["mean"], state.losses]} == {"meta"}
        assert all(value.device.type == "meta" for value in phase.to_adapt(state.params).values())
        if phase.key == "maml":
            tasks = all_held_out(setting.distribution, "validation", training.episode).to("meta")
            outputs = Learner.from_spec(spec, shape).predict(state.params, tasks.support_x, tasks.support_y, tasks.query_x, 2)
            assert outputs.device.type == "meta"
            assert len(outputs) == len(tasks)


def test_a_profile_of_some_iterations_opens_as_a_trace(sinusoids: Setting, tmp_path: Path) -> None:
    trained = train_all(small_mlp(sinusoids), tmp_path / "checkpoints", traces=tmp_path / "traces")
    assert list(trained) == ["maml", "pretrained"]
    for phase in trained:
        trace = json.loads(gzip.decompress((tmp_path / "traces" / f"{phase}.json.gz").read_bytes()))
        names = [event.get("name") for event in trace["traceEvents"]]
        assert {"data", "gradient", "optimizer"} <= set(names)
        assert 15 <= names.count("optimizer") <= 25


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use")
@pytest.mark.parametrize("compiled", ["on", "off"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("kind", ["mlp", "conv4"])
def test_training_and_evaluation_run_on_a_gpu(
    kind: str, precision: str, compiled: str, sinusoids: Setting, noise_setting: Setting, tmp_path: Path
) -> None:
    setting = noise_setting if kind == "conv4" else small_mlp(sinusoids)
    setting = with_train(setting, precision=precision, compile=compiled, baselines=())
    on = {device: replace(setting, spec=setting.spec.model_copy(update={"device": device})) for device in ("cpu", "cuda")}
    trained = {device: train_all(of_device, tmp_path / device)["maml"].params for device, of_device in on.items()}
    table = evaluate_all(on["cuda"], {"maml": trained["cuda"]}).tasks
    assert np.isfinite(table["loss_0"]).all()
    for name, value in trained["cpu"].items():
        torch.testing.assert_close(trained["cuda"][name], value, rtol=0.05, atol=0.01)


def test_every_training_task_may_have_its_own_number_of_shots(tmp_path: Path) -> None:
    body = SPEC.model_dump(exclude_unset=True)
    body["train"] |= {"shots": {"low": 2, "high": 5}, "iterations": 20}
    setting = setting_of(PipelineSpec.model_validate(body), tmp_path)
    training = training_of(setting.spec, setting.shape, setting.distribution, phases_of(setting)[0])
    first, second = (next(loop._batches(training, 3)).support_weight for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.equal(second)
    assert 2 <= first.sum(1).min() < first.sum(1).max() <= 5
    assert first.equal(next(loop._batches(replace(training, iterations=100), 3)).support_weight)  # type: ignore[arg-type]
    curves = training.validate(phases_of(setting)[0].initial)
    assert all(np.isfinite(value) for value in curves.values())
