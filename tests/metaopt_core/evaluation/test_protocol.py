"""The table of tasks against an adaptation that is carried out by hand, and what it doesn't depend on."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from metaopt_core.distributions import batch
from metaopt_core.distributions.batch import Episode
from metaopt_core.evaluation import protocol
from metaopt_core.evaluation.protocol import evaluate, predictions, prepare
from metaopt_core.meta.learner import Learner
from metaopt_core.methods.contract import Setting, compared
from metaopt_core.networks.network import Params
from metaopt_core.spec.pipeline import PipelineSpec
from tests.metaopt_core.training.train_once import SPEC
from tests.small import all_held_out, evaluate_all, phases_of, setting_of

STEPS = 3


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    evaluated = {"steps": STEPS, "queries": 9, "shifted": {"far": {"x": [5.0, 10.0], "shots": 3}}}
    spec = PipelineSpec.model_validate(SPEC.model_dump() | {"evaluate": evaluated})
    return setting_of(spec, tmp_path_factory.mktemp("sinusoids"))


@pytest.fixture(scope="module")
def trained(setting: Setting) -> dict[str, Params]:
    return {phase.key: phase.to_adapt(phase.initial) for phase in phases_of(setting)}


@pytest.fixture(scope="module")
def table(setting: Setting, trained: Mapping[str, Params]) -> pd.DataFrame:
    return evaluate_all(setting, trained).tasks


def losses(table: pd.DataFrame, method: str, variant: str = "in-distribution") -> Any:
    rows = table[(table["method"] == method) & (table["variant"] == variant)]
    return rows[[f"loss_{step}" for step in range(STEPS + 1)]].to_numpy()


def by_hand(setting: Setting, params: Params, task: int, shots: int, x: tuple[float, float] | None = None) -> list[float]:
    """The loss of one meta-test task after each number of plain gradient steps, by autograd alone."""
    distribution = setting.distribution if x is None else setting.distribution.shifted({"x": x})
    tasks = all_held_out(distribution, "test", Episode(None, shots, 9))
    network, lr = Learner.from_spec(setting.spec, setting.shape).network, setting.spec.train.inner.lr
    theta, found = {name: value[None].clone() for name, value in params.items()}, []
    for _ in range(STEPS + 1):
        with torch.no_grad():
            found.append((network(theta, tasks.query_x[[task]]) - tasks.query_y[[task]]).square().mean().item())
        leaves = {name: value.requires_grad_() for name, value in theta.items()}
        loss = (network(leaves, tasks.support_x[[task]]) - tasks.support_y[[task]]).square().mean()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        theta = {name: (value - lr * g).detach() for (name, value), g in zip(leaves.items(), gradients, strict=True)}
    return found


def test_each_row_is_what_gradient_steps_on_that_task_come_to(
    setting: Setting, trained: Mapping[str, Params], table: pd.DataFrame
) -> None:
    for task in (0, 7, 19):
        assert losses(table, "maml")[task] == pytest.approx(by_hand(setting, trained["maml"], task, 5), rel=1e-4)
        shifted = by_hand(setting, trained["maml"], task, 3, (5.0, 10.0))
        assert losses(table, "maml", "far")[task] == pytest.approx(shifted, rel=1e-4)


def test_what_takes_no_steps_has_the_same_number_after_all_of_them(table: pd.DataFrame) -> None:
    unadapted = losses(table, "unadapted")
    assert (unadapted == unadapted[:, :1]).all()
    assert unadapted[:, 0] == pytest.approx(losses(table, "maml")[:, 0])


def test_tasks_that_are_drawn_in_parts_are_measured_the_same(
    setting: Setting, trained: Mapping[str, Params], table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "PART_BYTES", 1)  # one at a time
    pd.testing.assert_frame_equal(evaluate_all(setting, trained).tasks, table, rtol=1e-5)


def test_a_search_is_judged_by_what_evaluation_would_find_on_the_validation_tasks(
    setting: Setting, trained: Mapping[str, Params]
) -> None:
    class ValidationAsTest:
        def __getattr__(self, name: str) -> Any:
            return getattr(setting.distribution, name)

        def held_out(self, split: str, *arguments: Any) -> Any:
            return setting.distribution.held_out("validation", *arguments)

    spec = setting.spec.model_copy(update={"evaluate": setting.spec.evaluate.model_copy(update={"shifted": None})})
    other = replace(setting, spec=spec, distribution=ValidationAsTest())
    expected = losses(evaluate(other, prepare(other, compared(spec), trained)).tasks, "maml")[:, 2].mean()
    assert protocol.objective(setting, trained["maml"], "loss", 2) == pytest.approx(expected, rel=1e-5)


def test_examples_show_outputs_before_and_after_as_many_steps_as_there_are(
    setting: Setting, trained: Mapping[str, Params], table: pd.DataFrame
) -> None:
    tasks = all_held_out(setting.distribution, "test", Episode(None, 5, 9))[:2]
    ready = prepare(setting, compared(setting.spec), trained)
    for shown, one in zip(predictions(ready, tasks, 2), ready, strict=True):
        assert (shown.label, shown.color, shown.steps) == (one.label, one.method.color, 2)
        for outputs, step in ((shown.before, 0), (shown.after, 2)):
            found = (outputs - tasks.query_y).square().mean((1, 2)).numpy()
            assert found == pytest.approx(losses(table, one.key)[:2, step], rel=1e-4)


def test_a_task_that_blows_up_is_in_the_table(setting: Setting, trained: Mapping[str, Params]) -> None:
    wild = setting.spec.train.model_copy(update={"inner": setting.spec.train.inner.model_copy(update={"lr": 1e6})})
    other = replace(setting, spec=setting.spec.model_copy(update={"train": wild}))
    found = losses(evaluate_all(other, trained).tasks, "maml")
    assert len(found) == 20
    assert not np.isfinite(found[:, STEPS]).all() or found[:, STEPS].max() > 1e12
