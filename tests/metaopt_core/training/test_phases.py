"""Training goes on where it was: after a kill at any moment, after Ctrl-C, and it stops where a loss is not a number."""

import gzip
import json
import math
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
from metaopt_core.training.phases import _phase, train

from metaopt_core.distributions import functions, omniglot
from metaopt_core.distributions.batch import Episode, TaskBatch, TaskDistribution
from metaopt_core.distributions.functions import SinusoidSpec
from metaopt_core.distributions.omniglot import OmniglotSpec
from metaopt_core.errors import UserError
from metaopt_core.evaluation.protocol import evaluate, methods
from metaopt_core.meta.gradients import MetaGradient
from metaopt_core.meta.learner import Learner, device_named
from metaopt_core.meta.objectives import Plan
from metaopt_core.networks.network import Params
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.train import OuterSpec
from metaopt_core.training import loop as outer_loop
from metaopt_core.training.checkpoint import load_checkpoint, save_checkpoint
from metaopt_core.training.loop import Record, Training, fit
from tests.metaopt_core.meta.train_once import SPEC
from tests.small import SMALL_CONV, noise_pictures

RESULTS = ("maml.safetensors", "pretrained.safetensors", "history.json")


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.metaopt_core.meta.train_once", str(folder)]
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


@pytest.fixture
def distribution(tmp_path: Path) -> functions.Functions:
    assert isinstance(SPEC.generate, SinusoidSpec)
    functions.materialize(SPEC.generate, SPEC.seed, tmp_path)
    return functions.Functions.load(tmp_path)


def test_another_seed_gives_other_parameters(distribution: functions.Functions, tmp_path: Path) -> None:
    short = SPEC.model_copy(update={"train": SPEC.train.model_copy(update={"iterations": 3})})
    first, other = (
        train(spec, distribution, tmp_path / str(spec.seed))["maml"].params
        for spec in (short, short.model_copy(update={"seed": 1}))
    )
    assert not torch.equal(first["layer0.weight"], other["layer0.weight"])


def test_training_lowers_the_validation_loss_and_keeps_the_best(distribution: functions.Functions, tmp_path: Path) -> None:
    trained = train(SPEC, distribution, tmp_path / "checkpoints")["maml"]
    validations = {r.iteration: r.value for r in trained.history if r.name == "validation_loss"}
    assert list(validations) == [70, 140, 210, 280, 350, 420, 490, 500]
    assert validations[trained.best_iteration] == min(validations.values()) < 0.8 * validations[70]


def constant(distribution: functions.Functions, losses: list[float], validation: list[float]) -> Training:
    """A training of one parameter w with gradient 1, whose loss in iteration i is losses[i] and validates at validation[i]."""
    queue, validations = iter(losses), iter(validation)

    class Constant:
        plan: Plan | None = None

        def __call__(self, params: Params, batch: TaskBatch, iteration: int) -> MetaGradient:
            return MetaGradient({"w": torch.ones(1)}, torch.tensor([0.0, next(queue), 0.0]))

        def measure(self, params: Params, batch: TaskBatch) -> None:
            self.plan = Plan(len(batch), unrolled=False)

    return Training(
        name="MAML",
        objective=Constant(),
        distribution=distribution,
        episode=Episode(None, 1, 1),
        meta_batch_size=3,
        iterations=len(losses),
        outer=OuterSpec(lr=0.1),
        validate=lambda params: {"validation_loss": next(validations)},
        validate_every=2,
        checkpoint_every=1e9,
        device=torch.device("cpu"),
    )


def curves(history: list[Record]) -> list[tuple[int, str, float]]:
    """The points without their times."""
    return [(point.iteration, point.name, point.value) for point in history]


def test_a_point_has_the_time_at_which_it_was_made_also_after_training_resumed(
    distribution: functions.Functions, tmp_path: Path
) -> None:
    training = replace(constant(distribution, [1.0] * 7, [3.0, 2.0, 1.0]), iterations=6, checkpoint_every=1e-9)
    first: list[Record] = []

    def cut_short(record: Record) -> None:
        if record.iteration == 5:
            raise PowerCutError
        first.append(record)

    started = time.time()
    with pytest.raises(PowerCutError):
        fit(training, {"w": torch.zeros(1)}, tmp_path / "c", cut_short)
    stopped = time.time()
    assert first
    assert all(started <= point.time <= stopped for point in first)
    resumed = fit(training, {"w": torch.zeros(1)}, tmp_path / "c").history
    assert resumed[: len(first)] == first
    assert all(point.time > stopped for point in resumed[len(first) :])


def test_a_loss_that_is_not_a_number_stops_with_iteration_task_and_value(distribution: functions.Functions, tmp_path: Path) -> None:
    training = constant(distribution, [1.0, 1.0, 1.0, math.nan, 1.0], [1.0, 1.0])
    with pytest.raises(UserError, match=r"MAML: the loss of meta-train task 10 is nan in iteration 3: expected a finite number"):
        fit(training, {"w": torch.zeros(1)}, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_the_parameters_of_the_best_validation_are_kept(distribution: functions.Functions, tmp_path: Path) -> None:
    seen: list[Record] = []
    trained = fit(constant(distribution, [1.0] * 6, [3.0, 2.0, math.inf]), {"w": torch.zeros(1)}, tmp_path / "c", seen.append)
    assert trained.best_iteration == 4
    torch.testing.assert_close(trained.params["w"], torch.tensor([-0.4]))  # Adam's steps have the size of the step size
    assert [r for r in curves(seen) if r[1] == "validation_loss"] == [(2, "validation_loss", 3.0), (4, "validation_loss", 2.0)]
    assert seen == trained.history


def test_training_stops_after_as_many_validations_without_a_better_one_as_it_has_patience_for(
    distribution: functions.Functions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = replace(constant(distribution, [1.0] * 20, [3.0, 2.0, 4.0, 1.0, 1.0, 5.0]), patience=2)
    trained = fit(patient, {"w": torch.zeros(1)}, tmp_path / "c")
    assert (trained.iterations, trained.best_iteration) == (12, 8)
    assert "stopped after 12 iterations" in capsys.readouterr().err
    again = fit(replace(patient, validate=lambda _: pytest.fail("it goes on")), {"w": torch.zeros(1)}, tmp_path / "c")
    assert again.iterations == 12  # also where it is started again from its checkpoint


def test_a_training_that_never_validates_finitely_says_so(distribution: functions.Functions, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"adaptation diverged in every validation up to iteration 4"):
        fit(constant(distribution, [1.0] * 4, [math.inf, math.nan]), {"w": torch.zeros(1)}, tmp_path / "c")


def test_the_step_size_falls_to_zero_along_a_cosine(distribution: functions.Functions, tmp_path: Path) -> None:
    training = constant(distribution, [1.0] * 4, [4.0, 3.0])
    training = replace(training, outer=OuterSpec(lr=0.1, schedule="cosine"))
    trained = fit(training, {"w": torch.zeros(1)}, tmp_path / "c")
    steps = [0.05 * (1 + math.cos(math.pi * i / 4)) for i in range(4)]
    torch.testing.assert_close(trained.params["w"], torch.tensor([-sum(steps)]))


def test_a_damaged_checkpoint_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "maml.safetensors"
    save_checkpoint(path, {"w": torch.ones(1000)}, {"iteration": 3})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"maml.safetensors: not a readable checkpoint .* delete it to train from the beginning"):
        load_checkpoint(path)


def test_a_checkpoint_gives_back_what_was_saved(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", {"w": torch.arange(3.0)}, {"best_loss": math.inf, "history": [[1, "loss", 0.1]]})
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded is not None
    assert torch.equal(loaded[0]["w"], torch.arange(3.0))
    assert json.loads(json.dumps(loaded[1])) == {"best_loss": math.inf, "history": [[1, "loss", 0.1]]}


def small_conv(folder: Path) -> tuple[PipelineSpec, TaskDistribution]:
    spec = SMALL_CONV
    assert isinstance(spec.generate, OmniglotSpec)
    omniglot.materialize(spec.generate, spec.seed, noise_pictures(), folder)
    return spec, omniglot.Omniglot.load(folder)


def small_mlp(folder: Path, compiled: Literal["on", "off"]) -> tuple[PipelineSpec, TaskDistribution]:
    assert isinstance(SPEC.generate, SinusoidSpec)
    functions.materialize(SPEC.generate, SPEC.seed, folder)
    shorter = SPEC.train.model_copy(update={"iterations": 60, "compile": compiled})
    return SPEC.model_copy(update={"train": shorter}), functions.Functions.load(folder)


def test_learned_step_sizes_stay_within_their_bounds(tmp_path: Path) -> None:
    spec, distribution = small_mlp(tmp_path, "off")
    for bounds in (None, (0.0095, 0.0105)):
        inner = {"lr": 0.01, "steps": 2, "learned_lr": "per_parameter", "lr_bounds": bounds}
        body = spec.model_dump() | {"train": spec.train.model_dump() | {"inner": inner, "baselines": []}}
        params = train(PipelineSpec.model_validate(body), distribution, tmp_path / str(bounds))["maml"].params
        sizes = torch.cat([value.flatten() for name, value in params.items() if name.startswith("inner_lr.")])
        assert (sizes.min().item() < 0.00949) == (sizes.max().item() > 0.01051) == (bounds is None)
        assert sizes.unique().numel() > 10


def test_every_step_learns_a_normalization_of_its_own_and_is_judged_by_it(tmp_path: Path) -> None:
    small, distribution = small_conv(tmp_path)
    changes = {
        "algorithm": "maml++",
        "model": {"name": "conv4", "filters": 8, "normalization": "per_step"},
        "baselines": ["pretrained"],
    }
    spec = PipelineSpec.model_validate(
        small.model_dump() | {"train": small.train.model_dump() | changes | {"outer_loss": "multi_step"}}
    )
    trained = {name: result.params for name, result in train(spec, distribution, tmp_path / "checkpoints").items()}
    first, second = trained["maml"]["norm3.scale"]
    assert not torch.equal(first, second)
    assert trained["pretrained"]["norm3.scale"].shape == (8,)
    compared = methods(spec, distribution, trained)
    assert list(compared) == ["maml", "pretrained", "random", "unadapted"]  # not made safe
    table = evaluate(spec, distribution, compared).groupby("method")
    accuracy, alone, collected = (table[f"{name}"].mean() for name in ("accuracy_2", "inductive_accuracy", "collected_accuracy"))
    assert accuracy["maml"] > 1 / 3
    assert list(alone.dropna().index) == ["maml", "pretrained", "random", "unadapted"]
    assert list(collected.dropna().index) == ["maml", "unadapted"]


class PowerCutError(Exception):
    """The power goes."""


@pytest.mark.parametrize("kind", ["mlp", "compiled mlp", "conv4"])
def test_a_resumed_training_does_the_iterations_that_are_left_and_ends_with_the_same_bits(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, distribution = small_conv(tmp_path) if kind == "conv4" else small_mlp(tmp_path, "on" if kind == "compiled mlp" else "off")
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"checkpoint_every": 1e-9})})  # after every iteration
    whole = train(spec, distribution, tmp_path / "whole")

    steps = 0
    step = outer_loop._step

    def counted(*arguments: Any) -> None:
        nonlocal steps
        if steps == cut:
            raise PowerCutError
        steps += 1
        step(*arguments)

    monkeypatch.setattr(outer_loop, "_step", counted)
    total = spec.train.iterations + len(spec.baselines) * spec.pretrain_iterations
    middle, second_phase = spec.train.iterations // 2, spec.train.iterations + 2
    for cut in [middle] if kind == "compiled mlp" else [1, middle, second_phase]:  # each start compiles anew
        with pytest.raises(PowerCutError):
            train(spec, distribution, tmp_path / "cut")
        assert steps == cut
    cut = -1
    resumed = train(spec, distribution, tmp_path / "cut")
    assert steps == total  # none is done twice
    for phase, result in whole.items():
        assert curves(resumed[phase].history) == curves(result.history)
        assert resumed[phase].best_iteration == result.best_iteration
        assert all(torch.equal(resumed[phase].params[name], value) for name, value in result.params.items())


@pytest.mark.parametrize("learned", ["none", "per_layer_and_step"])
@pytest.mark.parametrize("kind", ["mlp", "conv4"])
def test_no_tensor_of_training_or_evaluation_is_left_behind_on_the_cpu(kind: str, learned: Any, tmp_path: Path) -> None:
    """On the meta device nothing is computed, but an operation with a tensor from elsewhere fails as it would on a GPU."""
    spec, distribution = small_conv(tmp_path) if kind == "conv4" else small_mlp(tmp_path, "off")
    inner = spec.train.inner.model_copy(update={"learned_lr": learned})
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"inner": inner})})
    for name in ("maml", *spec.baselines):
        phase = _phase(name, spec, distribution)
        meta = torch.device("meta")
        training = replace(phase.training, device=meta, distribution=distribution.on(meta))
        state = outer_loop._begin(training, phase.initial)
        state.plan = Plan(2, unrolled=False)
        outer_loop._step(training, state, next(outer_loop._batches(training, 0)))
        assert {value.device.type for value in [*state.params.values(), state.adam["mean"], state.losses]} == {"meta"}
        assert all(value.device.type == "meta" for value in phase.to_adapt(state.params).values())
        if name == "maml":
            tasks = distribution.held_out("validation", training.episode).to("meta")
            outputs = Learner.from_spec(spec).predict(state.params, tasks.support_x, tasks.support_y, tasks.query_x, 2)
            assert outputs.device.type == "meta"
            assert len(outputs) == len(tasks)


def test_a_profile_of_some_iterations_opens_as_a_trace(tmp_path: Path) -> None:
    spec, distribution = small_mlp(tmp_path, "off")
    train(spec, distribution, tmp_path / "checkpoints", traces=tmp_path / "traces")
    for phase in ("maml", *spec.baselines):
        trace = json.loads(gzip.decompress((tmp_path / "traces" / f"{phase}.json.gz").read_bytes()))
        names = [event.get("name") for event in trace["traceEvents"]]
        assert {"data", "gradient", "optimizer"} <= set(names)
        assert 15 <= names.count("optimizer") <= 25


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use")
@pytest.mark.parametrize("compiled", ["on", "off"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("kind", ["mlp", "conv4"])
def test_training_and_evaluation_run_on_a_gpu(kind: str, precision: str, compiled: str, tmp_path: Path) -> None:
    spec, distribution = small_conv(tmp_path) if kind == "conv4" else small_mlp(tmp_path, "off")
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"precision": precision, "compile": compiled})})
    trained = {
        device: train(spec.model_copy(update={"device": device}), distribution, tmp_path / device)["maml"]
        for device in ("cpu", "cuda")
    }
    on_gpu = spec.model_copy(update={"device": "cuda"})
    table = evaluate(on_gpu, distribution, methods(on_gpu, distribution, {"maml": trained["cuda"].params}))
    assert np.isfinite(table["loss_0"]).all()
    for name, value in trained["cpu"].params.items():
        torch.testing.assert_close(trained["cuda"].params[name], value, rtol=0.05, atol=0.01)


def test_a_gpu_that_is_not_there_is_a_plain_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_named("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="device: cuda, but PyTorch finds no GPU"):
        device_named("cuda")
