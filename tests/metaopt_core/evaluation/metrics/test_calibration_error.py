"""The expected calibration error against numbers worked out by hand."""

import numpy as np
import pytest
import torch

from metaopt_core.evaluation.metrics.calibration_error import bins, calibration_error


def logits(confidence: list[float]) -> torch.Tensor:
    """Outputs of one task whose first of two classes has such probabilities, [1, queries, 2]."""
    first = torch.tensor(confidence, dtype=torch.float64)
    return torch.stack([first.log(), (1 - first).log()], -1)[None]


def test_it_is_the_mean_distance_of_probability_and_frequency() -> None:
    confidence, correct = [0.9, 0.9, 0.9, 0.9, 0.52, 0.52], [True, True, True, False, True, False]
    labels = torch.tensor([[0 if right else 1 for right in correct]])
    (found,) = calibration_error.of(logits(confidence), labels).tolist()
    assert found == pytest.approx(4 / 6 * 0.15 + 2 / 6 * 0.02)
    assert [part["share"] for part in bins(np.array(confidence), np.array(correct))] == pytest.approx([2 / 6, 4 / 6])
    sure = torch.tensor([[[1e4, 0.0]] * 3])  # a probability of 1
    assert calibration_error.of(sure, torch.zeros(1, 3, dtype=torch.int64)).item() == 0


def test_each_task_has_an_error_of_its_own() -> None:
    outputs = torch.cat([logits([0.9, 0.9]), logits([0.7, 0.7])])
    found = calibration_error.of(outputs, torch.tensor([[0, 0], [0, 1]]))
    assert found.tolist() == pytest.approx([0.1, 0.2])
