"""The outer loop on one number with a known gradient: what it keeps, where it stops, and how it steps."""

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metaopt_core.distributions.batch import Episode, TaskBatch, TaskDistribution
from metaopt_core.errors import UserError
from metaopt_core.meta.gradients import MetaGradient
from metaopt_core.networks.network import Params
from metaopt_core.spec.train import OuterSpec
from metaopt_core.training.loop import Record, Training, _parted, fit
from tests.metaopt_core.training.train_once import SPEC
from tests.small import setting_of


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> TaskDistribution:
    return setting_of(SPEC, tmp_path_factory.mktemp("sinusoids")).distribution


def constant(distribution: TaskDistribution, losses: list[float], validation: list[float]) -> Training:
    """A training of one parameter w with gradient 1, whose loss in iteration i is losses[i] and validates at validation[i]."""
    queue, validations = iter(losses), iter(validation)

    class Constant:
        def __call__(self, params: Params, batch: TaskBatch, iteration: int) -> MetaGradient:
            return MetaGradient({"w": torch.ones(1)}, torch.tensor([0.0, next(queue), 0.0]))

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
    distribution: TaskDistribution, tmp_path: Path
) -> None:
    training = replace(constant(distribution, [1.0] * 7, [3.0, 2.0, 1.0]), iterations=6, checkpoint_every=1e-9)
    first: list[Record] = []

    def cut_short(record: Record) -> None:
        if record.iteration == 5:
            raise InterruptedError
        first.append(record)

    started = time.time()
    with pytest.raises(InterruptedError):
        fit(training, {"w": torch.zeros(1)}, tmp_path / "c", cut_short)
    stopped = time.time()
    assert first
    assert all(started <= point.time <= stopped for point in first)
    resumed = fit(training, {"w": torch.zeros(1)}, tmp_path / "c").history
    assert resumed[: len(first)] == first
    assert all(point.time > stopped for point in resumed[len(first) :])


def test_a_loss_that_is_not_a_number_stops_with_iteration_task_and_value(distribution: TaskDistribution, tmp_path: Path) -> None:
    training = constant(distribution, [1.0, 1.0, 1.0, math.nan, 1.0], [1.0, 1.0])
    with pytest.raises(UserError, match=r"MAML: the loss of meta-train task 10 is nan in iteration 3: expected a finite number"):
        fit(training, {"w": torch.zeros(1)}, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_the_parameters_of_the_best_validation_are_kept(distribution: TaskDistribution, tmp_path: Path) -> None:
    seen: list[Record] = []
    trained = fit(constant(distribution, [1.0] * 6, [3.0, 2.0, math.inf]), {"w": torch.zeros(1)}, tmp_path / "c", seen.append)
    assert trained.best_iteration == 4
    torch.testing.assert_close(trained.params["w"], torch.tensor([-0.4]))  # Adam's steps have the size of the step size
    assert [r for r in curves(seen) if r[1] == "validation_loss"] == [(2, "validation_loss", 3.0), (4, "validation_loss", 2.0)]
    assert seen == trained.history


def test_training_stops_after_as_many_validations_without_a_better_one_as_it_has_patience_for(
    distribution: TaskDistribution, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = replace(constant(distribution, [1.0] * 20, [3.0, 2.0, 4.0, 1.0, 1.0, 5.0]), patience=2)
    trained = fit(patient, {"w": torch.zeros(1)}, tmp_path / "c")
    assert (trained.iterations, trained.best_iteration) == (12, 8)
    assert "stopped after 12 iterations" in capsys.readouterr().err
    again = fit(replace(patient, validate=lambda _: pytest.fail("it goes on")), {"w": torch.zeros(1)}, tmp_path / "c")
    assert again.iterations == 12  # also where it is started again from its checkpoint


def test_a_training_that_never_validates_finitely_says_so(distribution: TaskDistribution, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"adaptation diverged in every validation up to iteration 4"):
        fit(constant(distribution, [1.0] * 4, [math.inf, math.nan]), {"w": torch.zeros(1)}, tmp_path / "c")


def test_the_step_size_falls_to_zero_along_a_cosine(distribution: TaskDistribution, tmp_path: Path) -> None:
    training = constant(distribution, [1.0] * 4, [4.0, 3.0])
    training = replace(training, outer=OuterSpec(lr=0.1, schedule="cosine"))
    trained = fit(training, {"w": torch.zeros(1)}, tmp_path / "c")
    steps = [0.05 * (1 + math.cos(math.pi * i / 4)) for i in range(4)]
    torch.testing.assert_close(trained.params["w"], torch.tensor([-sum(steps)]))


def test_a_batch_is_stored_alike_whichever_batches_are_drawn_with_it() -> None:
    """Matrix products round by the address of what they read, so that a resumed training would have other bits."""
    drawn = TaskBatch(*(torch.arange(6 * 3 * width, dtype=torch.float32).view(6, 3, width) for width in (5, 1, 7, 1)))
    drawn = replace(drawn, support_weight=torch.rand(6, 3) + 0.1)
    parts = list(_parted(drawn, 3))
    for number, part in enumerate(parts):
        for value, expected in zip(vars(part).values(), vars(drawn[2 * number : 2 * number + 2]).values(), strict=True):
            assert (value is None) == (expected is None)
            if value is not None:
                assert value.equal(expected)
                assert value.data_ptr() % 64 == 0
