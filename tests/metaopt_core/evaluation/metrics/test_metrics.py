"""Errors of predictions against their definitions, computed by NumPy; a weight of 0 leaves a query out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from metaopt_core.evaluation.metrics.accuracy import accuracy
from metaopt_core.evaluation.metrics.cross_entropy import cross_entropy
from metaopt_core.evaluation.metrics.mae import mae
from metaopt_core.evaluation.metrics.rmse import rmse
from metaopt_core.evaluation.metrics.squared_error import squared_error
from metaopt_core.spec.metric import Metric

RANDOM = np.random.default_rng(0)
OUTPUTS, TARGETS = RANDOM.normal(size=(2, 3, 5, 2))
LABELS = RANDOM.integers(2, size=(3, 5))
WEIGHT = np.array([[1, 1, 0, 1, 0]] * 3, dtype=float)
KEPT = WEIGHT[0] > 0

REGRESSION: list[tuple[Metric, Callable[[Any], Any]]] = [
    (squared_error, lambda error: (error**2).mean((1, 2))),
    (rmse, lambda error: np.sqrt((error**2).mean((1, 2)))),
    (mae, lambda error: np.abs(error).mean((1, 2))),
]


@pytest.mark.parametrize(("metric", "expected"), REGRESSION, ids=[metric.name for metric, _ in REGRESSION])
def test_of_real_targets(metric: Metric, expected: Callable[[Any], Any]) -> None:
    of: Callable[..., torch.Tensor] = metric.of
    outputs, targets, weight = torch.tensor(OUTPUTS), torch.tensor(TARGETS), torch.tensor(WEIGHT)
    np.testing.assert_allclose(of(outputs, targets, None).numpy(), expected(OUTPUTS - TARGETS))
    np.testing.assert_allclose(of(outputs, targets, weight).numpy(), expected((OUTPUTS - TARGETS)[:, KEPT]))


def test_of_classes() -> None:
    outputs, labels, weight = torch.tensor(OUTPUTS), torch.tensor(LABELS), torch.tensor(WEIGHT)
    probability = np.exp(OUTPUTS) / np.exp(OUTPUTS).sum(-1, keepdims=True)
    surprise = -np.log(np.take_along_axis(probability, LABELS[..., None], 2)[..., 0])
    right = OUTPUTS.argmax(-1) == LABELS
    for metric, of_query in ((accuracy, right), (cross_entropy, surprise)):
        of: Callable[..., torch.Tensor] = metric.of
        np.testing.assert_allclose(of(outputs, labels, None).numpy(), of_query.mean(1))
        np.testing.assert_allclose(of(outputs, labels, weight).numpy(), of_query[:, KEPT].mean(1))
