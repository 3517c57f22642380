"""What an expert would try first, against scikit-learn and statsmodels on the same rows."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lightgbm import Booster
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams

from metaopt_core.distributions.batch import Episode, TaskBatch, Tasks
from metaopt_core.methods import alone, gaussian, gp_grid, linear
from metaopt_core.methods.contract import DEVIATION, TOGETHER, Method, Setting, compared
from metaopt_core.methods.from_support import Choices, Pooled, ladder, pooled, text
from metaopt_core.methods.support import Support
from metaopt_core.spec.pipeline import PipelineSpec
from tests.small import setting_of

METHODS = (
    *("support_mean", "pooled_ridge", "pooled_ridge_offset", "pooled_boosting", "pooled_boosting_offset", "mixed_model"),
    *("mixed_model_gp", "ridge_alone", "nearest_neighbours", "random_forest", "gp_alone", "gp_shared"),
    "boosting_on_support",
)
RANDOM = np.random.default_rng(0)


def double(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RANDOM.normal(size=shape))


SUPPORT = Support(double(3, 8, 2), double(3, 8, 1), torch.ones(3, 8, dtype=torch.float64))
QUERY = double(3, 5, 2)


def padded(support: Support) -> Support:
    """The same with examples of weight 0 at the end."""
    x, y = (torch.cat([one, torch.zeros(3, 2, one.shape[-1], dtype=one.dtype)], 1) for one in (support.x, support.y))
    return replace(support, x=x, y=y, weight=torch.cat([support.weight, torch.zeros(3, 2, dtype=torch.float64)], 1))


def one(value: float) -> Choices:
    return Choices(torch.ones(1), torch.tensor([value], dtype=torch.float64))


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    body = {
        "name": "assays",
        "generate": {
            "distribution": "tests.toys.assays:Assays",
            "train_tasks": 12,
            "held_out": {"validation_tasks": 6, "test_tasks": 4},
        },
        "train": {"model": {"name": "mlp"}, "iterations": 1, "shots": 8, "queries": 10, "baselines": list(METHODS)},
    }
    return setting_of(PipelineSpec.model_validate(body), tmp_path_factory.mktemp("assays"))


@pytest.fixture(scope="module")
def rows(setting: Setting) -> Pooled:
    found = pooled(setting, "train")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def fits(setting: Setting) -> dict[str, tuple[Method, Any]]:
    patched = pytest.MonkeyPatch()
    patched.setattr(gaussian.learn, "__defaults__", (40, 0.1, 16))
    found = {method.name: (method, method.fit(setting)) for method in compared(setting.spec) if method.fitted}
    patched.undo()
    return found


def test_pooled_ridge_is_scikit_learns(rows: Pooled) -> None:
    found = linear.ridge_of(rows, 0.1)
    weight = rows.weight / rows.weight.sum()
    centred = rows.x - (rows.x * weight[:, None]).sum(0)
    penalty = 0.1 * float((centred.square() * weight[:, None]).sum(0).mean())
    expected = Ridge(alpha=penalty).fit(rows.x, rows.y, weight)
    assert linear.line(found, QUERY.repeat(1, 1, 2)).flatten().numpy() == pytest.approx(
        expected.predict(QUERY.repeat(1, 1, 2).reshape(-1, 4)).flatten(), rel=1e-6
    )


def test_ridge_and_neighbours_on_each_task_are_scikit_learns_and_padding_changes_nothing() -> None:
    for support in (SUPPORT, padded(SUPPORT)):
        ridge, neighbours = (predict(support, QUERY)[0] for predict in (linear.alone(one(0.7)), alone.nearest(one(3))))
        for task in range(3):
            x, y = SUPPORT.x[task].numpy(), SUPPORT.y[task].numpy()
            assert ridge[task].numpy() == pytest.approx(Ridge(alpha=0.7).fit(x, y).predict(QUERY[task]).reshape(-1, 1))
            assert neighbours[task].numpy() == pytest.approx(KNeighborsRegressor(3).fit(x, y).predict(QUERY[task]))


def test_a_prior_of_tasks_predicts_as_scikit_learns_gaussian_process() -> None:
    both = {"signal": torch.tensor([0.8]), "scales": torch.tensor([[0.7, 1.5]]), "noise": torch.tensor([0.3])}
    prior = gaussian.Prior(
        beta=torch.tensor([[0.5, -1.0, 2.0]]), intercept=torch.tensor([0.6]), slopes=torch.tensor([[0.4, 0.4]]), **both
    )
    prior = gaussian.Prior.of({name: value.double() for name, value in vars(prior).items()})
    kernel = ConstantKernel(0.6) + ConstantKernel(0.4) * DotProduct(0.0) + ConstantKernel(0.8) * RBF([0.7, 1.5]) + WhiteKernel(0.3)
    for support in (SUPPORT, padded(SUPPORT)):
        mean, deviation = gaussian.predict(prior, support, QUERY)
        for task in range(3):
            process = GaussianProcessRegressor(kernel, alpha=0, optimizer=None)
            process.fit(SUPPORT.x[task], (SUPPORT.y - prior.mean(SUPPORT.x))[task, :, 0])
            expected, spread = process.predict(QUERY[task], return_std=True)
            assert (mean - prior.mean(QUERY))[task, :, 0].numpy() == pytest.approx(expected, abs=1e-6)
            assert deviation[task, :, 0].numpy() == pytest.approx(spread, rel=1e-5)


def test_the_mixed_model_has_the_maximum_likelihood_of_statsmodels() -> None:
    random, tasks, each = np.random.default_rng(1), 60, 12
    x, task = random.normal(size=(tasks * each, 2)), np.repeat(np.arange(tasks), each)
    effects = random.normal(size=(tasks, 3)) * [0.5, 0.7, 0.9]
    y = 1 + x @ [2, -1] + (x * effects[task, :2]).sum(1) + effects[task, 2] + 0.6 * random.normal(size=len(x))
    pooled_rows = Pooled(torch.tensor(x), torch.tensor(y)[:, None], torch.tensor(task), torch.ones(len(x)))
    found = gaussian.mixed_model(pooled_rows, slopes=True, most=500, tolerance=1e-8)
    z = np.column_stack([x, np.ones(len(x))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        free = MixedLMParams.from_components(np.ones(3), np.eye(3))
        expected = MixedLM(y, z, task, exog_re=z).fit(reml=False, free=free)
    assert found.beta[0].numpy() == pytest.approx(expected.fe_params, abs=2e-3)
    variances = [*found.slopes[0].tolist(), float(found.intercept)]
    assert variances == pytest.approx(np.diag(expected.cov_re), rel=0.02)
    assert float(found.noise) == pytest.approx(expected.scale, rel=0.01)


def test_an_offset_is_the_mean_of_what_is_left_shrunk_by_how_few_examples_there_are() -> None:
    found, _ = linear.offset(lambda x: x[..., :1], {"examples": torch.tensor(4.0)})(padded(SUPPORT), QUERY)
    left = (SUPPORT.y - SUPPORT.x[..., :1]).sum(1, keepdim=True) / (8 + 4)
    assert found.numpy() == pytest.approx((QUERY[..., :1] + left).numpy())


def test_a_process_on_one_task_takes_the_likeliest_of_its_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gp_grid, "_SCALES", (0.9,))
    monkeypatch.setattr(gp_grid, "_NOISES", (0.3,))
    params = {"within": torch.ones(1, dtype=torch.float64), "examples": torch.tensor([1e-9], dtype=torch.float64)}
    mean, _ = gp_grid.predictor(params)(padded(SUPPORT), QUERY)
    for task in range(3):
        y = (SUPPORT.y[task] - SUPPORT.y[task].mean())[:, 0]
        process = GaussianProcessRegressor(RBF(0.9 * 2**0.5) + WhiteKernel(0.3), alpha=0, optimizer=None).fit(SUPPORT.x[task], y)
        expected = process.predict(QUERY[task]) + float(SUPPORT.y[task].mean())
        assert mean[task, :, 0].numpy() == pytest.approx(expected, abs=1e-6)


def test_logistic_regression_of_a_task_is_scikit_learns_and_one_class_alone_is_its_share() -> None:
    labels = torch.tensor([[0, 1, 1, 0, 1, 0, 0, 1], [1] * 8, [0, 1] * 4])
    support = replace(SUPPORT, y=labels, ways=2)
    found = alone.logistic(one(1.0))(support, QUERY)[0].softmax(-1)
    expected = LogisticRegression(C=1.0).fit(SUPPORT.x[0], labels[0]).predict_proba(QUERY[0])
    assert found[0].numpy() == pytest.approx(0.99 * expected + 0.005, abs=1e-4)
    assert found[1, :, 1].numpy() == pytest.approx(0.995)
    shares = alone.majority(one(1.0))(support, QUERY)[0].softmax(-1)
    assert shares[1, 0].tolist() == pytest.approx([0.1, 0.9])


def test_each_is_fitted_ready_and_better_where_tasks_share_a_line(setting: Setting, fits: dict[str, tuple[Method, Any]]) -> None:
    assert set(fits) == set(METHODS)
    tasks = Tasks.held_out(setting.distribution, "test", Episode(None, 8, 20)).all()
    errors = {}
    for name, (method, params) in fits.items():
        adapter = method.prepare(setting, {name: params})
        assert adapter is not None
        (made,) = list(adapter.adapted(tasks))
        outputs = made[TOGETHER](tasks.query_x, None)
        assert (outputs.shape, outputs.dtype) == (tasks.query_y.shape, torch.float32)
        errors[name] = float((outputs - tasks.query_y).square().mean())
        if DEVIATION in made:
            deviation = made[DEVIATION](tasks.query_x, None)
            within = ((outputs - tasks.query_y).abs() < 1.96 * deviation).float().mean()
            assert float(within) > 0.75
    assert {name for name, (_, params) in fits.items() if params} == set(METHODS)
    assert min(errors, key=lambda name: errors[name]) in {"mixed_model", "gp_shared", "boosting_on_support"}
    assert errors["mixed_model"] < errors["pooled_ridge_offset"] < errors["pooled_ridge"]


def test_predictions_know_what_was_subtracted_from_the_targets(setting: Setting, fits: dict[str, tuple[Method, Any]]) -> None:
    tasks = Tasks.held_out(setting.distribution, "test", Episode(None, 8, 5)).all()
    assert tasks.origin is not None
    moved = TaskBatch(
        tasks.support_x, tasks.support_y - 1, tasks.query_x, tasks.query_y - 1, origin=tasks.origin + 1
    )  # the same targets
    for name, (method, params) in fits.items():
        adapter = method.prepare(setting, {name: params})
        assert adapter is not None
        first, second = (next(iter(adapter.adapted(one)))[TOGETHER](one.query_x, None) for one in (tasks, moved))
        torch.testing.assert_close(second, first - 1, rtol=1e-4, atol=1e-4)


def test_one_seed_has_one_fit_and_a_model_of_trees_is_text(setting: Setting, fits: dict[str, tuple[Method, Any]]) -> None:
    for name in ("pooled_boosting_offset", "mixed_model", "random_forest"):
        method, params = fits[name]
        again = method.fit(setting)
        assert all(torch.equal(again[key], value) for key, value in params.items())
    assert Booster(model_str=text(fits["pooled_boosting"][1], "model_0")).num_feature() == 4


def test_choices_are_made_for_some_numbers_of_examples_and_a_task_goes_by_the_nearest(setting: Setting) -> None:
    assert ladder(setting) == [4, 8]
    choices = Choices(torch.tensor([5, 10, 20]), torch.tensor([1.0, 2.0, 3.0]))
    assert choices.of(SUPPORT).tolist() == [2.0] * 3
    assert choices.of(replace(SUPPORT, weight=(torch.arange(8) < 5).double().expand(3, 8))).tolist() == [1.0] * 3
