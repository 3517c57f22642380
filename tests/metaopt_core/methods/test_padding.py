"""Examples of weight 0 are padding for every method and every metric: whatever stands there, no number anywhere changes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from metaopt_core.distributions.batch import Episode, HeldOutSplit, TaskBatch, TaskDistribution
from metaopt_core.evaluation.protocol import evaluate, objective, over_training, prepare
from metaopt_core.methods.contract import Setting, compared
from metaopt_core.spec.components import METRICS, known
from metaopt_core.spec.metric import Metric
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.training.loop import _batches
from metaopt_core.training.phase import training_of
from tests.metaopt_core.training.train_once import SPEC
from tests.small import SMALL_CONV, phases_of, setting_of

NAN, LARGE = float("nan"), 1e6


def padded(values: Tensor, content: float) -> Tensor:
    """[tasks, examples, …] with three rows put in; labels get 99, which no task has."""
    filled = values.new_full((len(values), 1, *values.shape[2:]), content if values.is_floating_point() else 99)
    return torch.cat([filled, values[:, :1], filled, values[:, 1:], filled], 1)


def weights(values: Tensor) -> Tensor:
    """Of such rows."""
    return padded(torch.ones(values.shape[:2]), 0)


@dataclass(frozen=True)
class Padded:
    """A distribution whose tasks have rows of weight 0 among their examples."""

    inner: Any
    content: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def _padded(self, tasks: TaskBatch) -> TaskBatch:
        parts = {name: padded(getattr(tasks, name), self.content) for name in ("support_x", "support_y", "query_x", "query_y")}
        return replace(tasks, **parts, support_weight=weights(tasks.support_y), query_weight=weights(tasks.query_y))

    def train(self, episode: Episode, start: int, count: int) -> TaskBatch:
        return self._padded(self.inner.train(episode, start, count))

    def train_sample(self, trained: Episode, episode: Episode, start: int, count: int) -> TaskBatch:
        return self._padded(self.inner.train_sample(trained, episode, start, count))

    def held_out(self, split: HeldOutSplit, episode: Episode, start: int, count: int) -> TaskBatch:
        return self._padded(self.inner.held_out(split, episode, start, count))

    def on(self, device: torch.device) -> "Padded":
        return replace(self, inner=self.inner.on(device))

    def shifted(self, changes: Any) -> "Padded":
        return replace(self, inner=self.inner.shifted(changes))


CONV = SMALL_CONV.model_dump()
SINUSOID = SPEC.model_dump()
_OF_HEADS = ("model", "iterations", "shots", "queries", "validation")
SPECS: dict[str, dict[str, Any]] = {
    "regression": SINUSOID | {"evaluate": {"steps": 3, "shifted": {"fewer": {"shots": 3}}}},
    "regression, Meta-SGD": SINUSOID | {"train": SINUSOID["train"] | {"algorithm": "meta-sgd", "inner": {"steps": 3}}},
    "regression, Reptile": SINUSOID | {"train": SINUSOID["train"] | {"algorithm": "reptile"}},
    "regression, DKT": SINUSOID | {"train": {key: SINUSOID["train"][key] for key in _OF_HEADS} | {"algorithm": "dkt"}},
    "transductive conv4": CONV | {"evaluate": {"steps": 2, "shifted": {"fewer": {"ways": 2}}}},
    "conv4 by groups": CONV | {"train": CONV["train"] | {"model": {"name": "conv4", "filters": 8, "normalization": "group"}}},
    "conv4 by steps": CONV
    | {
        "train": CONV["train"]
        | {
            "algorithm": "maml++",
            "outer_loss": "multi_step",
            "model": {"name": "conv4", "filters": 8, "normalization": "per_step"},
        }
    },
}


@pytest.fixture(scope="module", params=SPECS)
def setting(request: pytest.FixtureRequest, noise_setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    spec = PipelineSpec.model_validate(SPECS[request.param])
    if "conv4" in request.param:
        return replace(noise_setting, spec=spec)
    return setting_of(spec, tmp_path_factory.mktemp("sinusoids"))


@pytest.fixture(scope="module")
def both(setting: Setting) -> tuple[Setting, Setting]:
    """The setting, and the same with padded tasks."""
    distribution: TaskDistribution = Padded(setting.distribution, NAN)
    return setting, replace(setting, distribution=distribution)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_what_is_trained_descends_on_the_same_gradient_and_validates_alike(both: tuple[Setting, Setting]) -> None:
    phases = [phases_of(one) for one in both]
    assert phases[0]
    for expected, found in zip(*phases, strict=True):
        results, curves = [], []
        for phase, one in zip((expected, found), both, strict=True):
            training = training_of(one.spec, one.shape, one.distribution, phase)
            batch = next(_batches(training, 0))
            results.append(training.objective(phase.initial, batch, 0))
            curves.append(training.validate(phase.initial))
        close(results[1].losses, results[0].losses)
        for name, gradient in results[0].gradient.items():
            close(results[1].gradient[name], gradient)
        assert results[1].notes.keys() == results[0].notes.keys()
        assert curves[1] == pytest.approx(curves[0], rel=1e-3, abs=1e-4)


def test_every_method_is_measured_alike_by_every_metric(both: tuple[Setting, Setting], tmp_path: Path) -> None:
    spec = both[0].spec
    trained = {phase.key: phase.to_adapt(phase.initial) for phase in phases_of(both[0])}
    ready = [prepare(one, compared(spec), trained) for one in both]
    rates = [[one.adapter.inner_lr for one in methods] for methods in ready]
    assert rates[1] == pytest.approx(rates[0], nan_ok=True)  # the same step sizes are chosen
    expected, found = (evaluate(one, methods) for one, methods in zip(both, ready, strict=True))
    assert list(found.tasks.columns) == list(expected.tasks.columns)
    for name in expected.tasks:
        values = [np.concatenate([np.atleast_1d(cell) for cell in table.tasks[name]]) for table in (expected, found)]
        if values[0].dtype.kind == "f":
            np.testing.assert_allclose(values[1], values[0], rtol=1e-3, atol=1e-3, err_msg=name)
        else:
            np.testing.assert_array_equal(values[1], values[0], err_msg=name)
    for variant, methods in expected.pooled.items():
        for method, numbers in methods.items():
            assert found.pooled[variant][method] == pytest.approx(numbers, abs=1e-3)

    learned = spec.learned.key(spec.train)
    (tmp_path / "snapshots").mkdir()
    save_file({name: value.contiguous() for name, value in trained[learned].items()}, tmp_path / "snapshots/1.safetensors")
    curves = [over_training(one, learned, tmp_path / "snapshots")["value"].tolist() for one in both]
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    for metric in (one.name for one in spec.metrics if not one.pooled):
        values_of_sweep = [objective(one, trained[learned], metric, 2) for one in both]
        assert values_of_sweep[1] == pytest.approx(values_of_sweep[0], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("content", [NAN, LARGE], ids=["nan", "large"])
@pytest.mark.parametrize("metric", known(METRICS, Metric).values(), ids=known(METRICS, Metric))
def test_a_metric_looks_at_no_padding_and_counts_a_weight_of_two_twice(metric: Metric, content: float) -> None:
    random = torch.Generator().manual_seed(0)
    outputs = torch.randn(4, 5, 3, generator=random)
    targets = torch.randint(3, (4, 5), generator=random) if metric.targets == "classes" else torch.randn(4, 5, 3, generator=random)
    support = {name: torch.randn(4, 3, generator=random) for name in metric.takes}
    of: Callable[..., Tensor] = partial(metric.of, **support)
    expected = of(outputs, targets, None)
    assert expected.shape == (4,)
    kept = TaskBatch(outputs, targets, padded(outputs, content), padded(targets, content), query_weight=weights(targets))
    torch.testing.assert_close(of(padded(outputs, content), kept.query_y, kept.query_weight), expected)
    twice = torch.ones(4, 5)
    twice[:, 2] = 2
    repeated = [0, 1, 2, 2, 3, 4]
    torch.testing.assert_close(of(outputs, targets, twice), of(outputs[:, repeated], targets[:, repeated], None))
