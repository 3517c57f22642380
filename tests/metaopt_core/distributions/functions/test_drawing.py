"""Functions are what the spec says, by index; held-out tasks stay what they were drawn as, and a shift changes nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from metaopt_core.distributions.batch import Episode, TaskBatch
from metaopt_core.distributions.functions import FunctionsSpec, MixtureSpec, SinusoidSpec
from metaopt_core.distributions.functions.drawing import Functions, materialize
from metaopt_core.distributions.functions.settings import Families
from metaopt_core.spec.distribution import HeldOut
from tests.small import all_held_out

EPISODE = Episode(None, shots=10, queries=6)
HELD_OUT = HeldOut(validation_tasks=30, test_tasks=40)
SINUSOID = SinusoidSpec(distribution="sinusoid", held_out=HELD_OUT)
MIXTURE = MixtureSpec(distribution="mixture", held_out=HELD_OUT, families=Families(line=1.0, quadratic=2.0, sinusoid=1.0))


def made(spec: FunctionsSpec, folder: Path) -> Functions:
    folder.mkdir(exist_ok=True)
    materialize(spec, 3, folder)
    return Functions.load(spec, 3, folder)


@pytest.fixture
def distribution(tmp_path: Path) -> Functions:
    return made(SINUSOID, tmp_path)


@pytest.fixture
def mixture(tmp_path: Path) -> Functions:
    return made(MIXTURE, tmp_path)


def same(a: TaskBatch, b: TaskBatch) -> bool:
    names = ("support_x", "support_y", "query_x", "query_y")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


def all_points(tasks: TaskBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """x and y of every point of each task, [tasks, points, 1] in float64."""
    x = torch.cat([tasks.support_x, tasks.query_x], 1).double()
    return x, torch.cat([tasks.support_y, tasks.query_y], 1).double()


def fit(tasks: TaskBatch, *basis: Any) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of basis functions [tasks, functions] by least squares over all points, and each task's largest residual."""
    x, y = all_points(tasks)
    design = torch.cat([function(x) for function in basis], 2)
    found = torch.linalg.lstsq(design, y).solution
    return found[..., 0].numpy(), (design @ found - y).abs().amax((1, 2)).numpy()


def amplitude_and_phase(tasks: TaskBatch) -> tuple[np.ndarray, np.ndarray]:
    """Solved from y = a·sin x + b·cos x by least squares over all points of each task."""
    solution, residual = fit(tasks, torch.sin, torch.cos)
    a, b = solution.T
    assert residual.max() < 1e-3
    return np.hypot(a, b), np.arctan2(-b, a)


def fills(values: np.ndarray, low: float, high: float) -> bool:
    slack = 0.03 * (high - low)
    return bool(low - 1e-3 <= values.min() < low + slack and high - slack < values.max() <= high + 1e-3)


# --- sinusoids ----------------------------------------------------------------------------------------------------------


def test_tasks_are_sinusoids_within_the_ranges_and_fill_them(distribution: Functions) -> None:
    tasks = distribution.train(EPISODE, 0, 2000)
    amplitude, phase = amplitude_and_phase(tasks)
    for values, low, high in ((amplitude, 0.1, 5.0), (phase, 0.0, np.pi), (tasks.support_x.numpy(), -5, 5)):
        assert fills(values, low, high)


@pytest.mark.parametrize(
    "spec", [SINUSOID, MIXTURE, MIXTURE.model_copy(update={"noise": 0.3})], ids=["sinusoid", "mixture", "noisy"]
)
def test_a_task_is_a_function_of_its_index_and_not_of_the_chunk(spec: FunctionsSpec, tmp_path: Path) -> None:
    distribution = made(spec, tmp_path)
    whole = distribution.train(EPISODE, 900, 100)
    for start, count in ((900, 1), (937, 5), (963, 37)):
        assert same(whole[start - 900 : start - 900 + count], distribution.train(EPISODE, start, count))


def test_held_out_tasks_share_their_first_support_points(distribution: Functions) -> None:
    five, ten = (all_held_out(distribution, "test", Episode(None, shots, 100)) for shots in (5, 10))
    assert len(five) == 40
    assert five.support_x.shape == (40, 5, 1)
    assert torch.equal(five.support_x, ten.support_x[:, :5])
    assert torch.equal(five.query_y, ten.query_y)
    assert torch.equal(five.query_x[0, :, 0], torch.linspace(-5, 5, 100, dtype=torch.float64).float())


@pytest.mark.parametrize("spec", [SINUSOID, MIXTURE], ids=["sinusoid", "mixture"])
def test_the_splits_hold_different_tasks(spec: FunctionsSpec, tmp_path: Path) -> None:
    distribution = made(spec, tmp_path)
    train = distribution.train(Episode(None, 20, 1), 0, 40).support_x
    validation, test = (all_held_out(distribution, split, Episode(None, 20, 1)).support_x for split in ("validation", "test"))
    assert len(torch.cat([train, validation, test])[..., 0].unique(dim=0)) == 40 + 30 + 40


# --- noise --------------------------------------------------------------------------------------------------------------


def test_noise_is_normal_of_the_given_size_and_spares_held_out_queries(tmp_path: Path) -> None:
    exact, noisy = (made(SINUSOID.model_copy(update={"noise": noise}), tmp_path) for noise in (0.0, 0.3))
    clean, observed = (distribution.train(EPISODE, 0, 1000) for distribution in (exact, noisy))
    noise = (all_points(observed)[1] - all_points(clean)[1]).flatten().numpy() / 0.3
    assert torch.equal(clean.support_x, observed.support_x)
    assert stats.kstest(noise, "norm").pvalue > 0.001
    clean, observed = (all_held_out(distribution, "test", EPISODE) for distribution in (exact, noisy))
    assert torch.equal(clean.query_y, observed.query_y)
    assert 0.25 < (observed.support_y - clean.support_y).std() < 0.35


# --- mixtures -----------------------------------------------------------------------------------------------------------


def test_a_sample_of_meta_train_tasks_differs_from_held_out_ones_by_the_tasks_alone(tmp_path: Path) -> None:
    distribution = made(SINUSOID.model_copy(update={"noise": 0.5}), tmp_path)
    trained = Episode(None, shots=3, queries=4)
    sample, held_out = distribution.train_sample(trained, EPISODE, 0, 500), all_held_out(distribution, "test", EPISODE)
    noiseless = made(SINUSOID, tmp_path)
    for one, other in zip(
        amplitude_and_phase(noiseless.train_sample(trained, EPISODE, 0, 500)),
        amplitude_and_phase(noiseless.train(trained, 0, 500)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-2)
    assert torch.equal(sample.query_x[: len(held_out)], held_out.query_x)
    clean = noiseless.train_sample(trained, EPISODE, 0, 500)
    assert torch.equal(clean.query_y, sample.query_y)
    assert torch.equal(clean.support_x, sample.support_x)
    assert (sample.support_y - clean.support_y).std().item() == pytest.approx(0.5, rel=0.05)


def test_each_task_of_a_mixture_is_of_one_family_and_the_weights_say_how_often(mixture: Functions) -> None:
    tasks = mixture.train(EPISODE, 0, 4000)
    polynomial, residual = fit(tasks, torch.ones_like, lambda x: x, torch.square)
    waves = fit(tasks, torch.sin, torch.cos)[1] < 1e-3
    assert ((residual < 1e-3) | waves).all()
    lines = ~waves & (np.abs(polynomial[:, 2]) < 1e-5)
    counts = [lines.sum(), (~waves & ~lines).sum(), waves.sum()]
    assert stats.chisquare(counts, [1000, 2000, 1000]).pvalue > 0.001
    offset, slope, _ = polynomial[lines].T
    assert fills(slope, -3, 3)
    assert fills(offset, -3, 3)
    constant, linear, curvature = polynomial[~waves & ~lines].T
    curved = np.abs(curvature) > 0.02  # the vertex of what is nearly a line can't be told
    vertex = -linear[curved] / (2 * curvature[curved])
    assert fills(curvature, -0.15, 0.15)
    assert fills(vertex, -3, 3)
    assert fills((constant[curved] - curvature[curved] * vertex**2), -3, 3)


def test_a_family_of_weight_zero_is_never_drawn(mixture: Functions) -> None:
    only = {name: mixture.shifted({"families": {name: 1.0}}) for name in ("line", "quadratic", "sinusoid")}
    tasks = {name: all_held_out(distribution, "test", EPISODE) for name, distribution in only.items()}
    assert fit(tasks["line"], torch.ones_like, lambda x: x)[1].max() < 1e-4
    assert fit(tasks["quadratic"], torch.ones_like, lambda x: x, torch.square)[1].max() < 1e-4
    assert fit(tasks["quadratic"], torch.ones_like, lambda x: x)[1].min() > 1e-4
    assert fit(tasks["sinusoid"], torch.sin, torch.cos)[1].max() < 1e-3


def test_a_mixture_of_sinusoids_alone_is_the_sinusoid_distribution(distribution: Functions, tmp_path: Path) -> None:
    alone = made(MIXTURE.model_copy(update={"families": Families(sinusoid=1.0)}), tmp_path / "alone")
    assert same(alone.train(EPISODE, 5, 50), distribution.train(EPISODE, 5, 50))
    assert same(all_held_out(alone, "test", EPISODE), all_held_out(distribution, "test", EPISODE))


# --- shifts -------------------------------------------------------------------------------------------------------------


def test_a_shift_makes_the_same_tasks_in_other_ranges(distribution: Functions) -> None:
    before = all_held_out(distribution, "test", Episode(None, 20, 50))
    louder, far = (distribution.shifted(shift) for shift in ({"amplitude": (5.0, 10.0)}, {"x": (5.0, 10.0)}))
    after = all_held_out(louder, "test", Episode(None, 20, 50))
    (small, phase), (large, phase_after) = amplitude_and_phase(before), amplitude_and_phase(after)
    assert torch.equal(before.support_x, after.support_x)
    np.testing.assert_allclose(phase_after, phase, atol=1e-4)
    np.testing.assert_allclose((large - 5) / 5, (small - 0.1) / 4.9, atol=1e-4)
    moved = all_held_out(far, "test", Episode(None, 20, 50))
    np.testing.assert_allclose((moved.support_x - 5) / 5, (before.support_x + 5) / 10, atol=1e-6)
    assert torch.equal(moved.query_x[7, :, 0], torch.linspace(5, 10, 50, dtype=torch.float64).float())
    np.testing.assert_allclose(amplitude_and_phase(moved)[0], small, atol=1e-3)


def test_a_shift_to_a_mixture_keeps_inputs_and_amplitudes(distribution: Functions) -> None:
    shifted = distribution.shifted({"distribution": "mixture", "families": {"line": 1.0, "sinusoid": 1.0}})
    before, after = (all_held_out(each, "test", EPISODE) for each in (distribution, shifted))
    waves = fit(after, torch.sin, torch.cos)[1] < 1e-3
    assert 5 < waves.sum() < 35
    assert torch.equal(after.support_x, before.support_x)
    assert torch.equal(after.query_y[torch.from_numpy(waves)], before.query_y[torch.from_numpy(waves)])
    assert fit(after, torch.ones_like, lambda x: x)[1][~waves].max() < 1e-4
