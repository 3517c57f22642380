"""Sinusoid tasks are what the paper says, by index, and the held-out ones stay what they were drawn as."""

from pathlib import Path

import numpy as np
import pytest
import torch

from metaopt_core.distributions import functions
from metaopt_core.distributions.batch import Episode, TaskBatch
from metaopt_core.spec.models import HeldOut, SinusoidSpec

EPISODE = Episode(None, shots=10, queries=6)


@pytest.fixture
def distribution(tmp_path: Path) -> functions.Functions:
    spec = SinusoidSpec(distribution="sinusoid", held_out=HeldOut(validation_tasks=30, test_tasks=40))
    functions.materialize(spec, 3, tmp_path)
    return functions.Functions.load(tmp_path)


def amplitude_and_phase(tasks: TaskBatch) -> tuple[np.ndarray, np.ndarray]:
    """Solved from y = a·sin x + b·cos x by least squares over all points of each task."""
    x = torch.cat([tasks.support_x, tasks.query_x], 1).double()
    y = torch.cat([tasks.support_y, tasks.query_y], 1).double()
    a, b = torch.linalg.lstsq(torch.cat([x.sin(), x.cos()], 2), y).solution[..., 0].T.numpy()
    return np.hypot(a, b), np.arctan2(-b, a)


def test_tasks_are_sinusoids_within_the_ranges_and_fill_them(distribution: functions.Functions) -> None:
    tasks = distribution.train(EPISODE, 0, 2000)
    amplitude, phase = amplitude_and_phase(tasks)
    fitted = amplitude[:, None] * np.sin(tasks.query_x[..., 0].numpy() - phase[:, None])
    assert np.abs(fitted - tasks.query_y[..., 0].numpy()).max() < 1e-3
    for values, low, high in ((amplitude, 0.1, 5.0), (phase, 0.0, np.pi), (tasks.support_x.numpy(), -5, 5)):
        assert low - 1e-3 <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high + 1e-3


def test_a_task_is_a_function_of_its_index(distribution: functions.Functions) -> None:
    whole, part = distribution.train(EPISODE, 0, 100), distribution.train(EPISODE, 37, 5)
    assert torch.equal(whole.support_x[37:42], part.support_x)
    assert torch.equal(whole.query_y[37:42], part.query_y)


def test_held_out_tasks_share_their_first_support_points(distribution: functions.Functions) -> None:
    five, ten = (distribution.held_out("test", Episode(None, shots, 100)) for shots in (5, 10))
    assert len(five) == 40
    assert five.support_x.shape == (40, 5, 1)
    assert torch.equal(five.support_x, ten.support_x[:, :5])
    assert torch.equal(five.query_y, ten.query_y)
    assert torch.equal(five.query_x[0, :, 0], torch.linspace(-5, 5, 100, dtype=torch.float64).float())


def test_the_splits_hold_different_tasks(distribution: functions.Functions) -> None:
    train = distribution.train(Episode(None, 20, 1), 0, 40).support_x
    validation, test = (distribution.held_out(split, Episode(None, 20, 1)).support_x for split in ("validation", "test"))
    assert len(torch.cat([train, validation, test])[..., 0].unique(dim=0)) == 40 + 30 + 40
