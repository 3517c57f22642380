"""Models on single tasks that have one setting: neighbours, forests, shares of classes and logistic regression."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.from_support import Choices, best, chosen, pooled, validation
from metaopt_core.methods.support import Predictor, Support
from metaopt_core.networks.network import Params

NEIGHBOURS = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)
LEAVES = (1.0, 3.0)  # examples of the smallest leaf
PSEUDO_EXAMPLES = (0.3, 1.0, 3.0, 10.0)  # of a class, beside those of the support set
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # C of logistic regression: the smaller, the stronger the penalty
TASKS_FOR_FORESTS = 12  # they take their time
_TREES = 40
_SMALLEST = 0.01  # share of a class: what a few neighbours or trees know nothing of is not impossible


def fitted(setting: Setting, values: Sequence[float], predictor: Callable[[Choices], Predictor], most: int | None = None) -> Params:
    """The best value for each number of examples. most: of the meta-validation tasks that choose."""

    def of(value: float) -> Predictor:
        return predictor(Choices(torch.ones(1), torch.tensor([value], dtype=torch.float64)))

    found = chosen(setting, values, of, most)
    return {"shots": found.shots, "value": found.value}


def choices(params: Params) -> Choices:
    return Choices(params["shots"], params["value"])


def nearest(count: Choices) -> Predictor:
    """The mean target of the k nearest examples by Euclidean distance, or the logarithms of their classes' shares."""

    def predict(support: Support, query_x: Tensor) -> tuple[Tensor, None]:
        distance = torch.cdist(query_x, support.x).masked_fill(support.weight[:, None] == 0, torch.inf)
        order = distance.argsort(dim=-1, stable=True)
        k = torch.minimum(count.of(support), (support.weight > 0).sum(1).double())
        near = torch.zeros_like(distance)
        places = (torch.arange(distance.shape[-1]) < k[:, None]).double()[:, None].expand_as(distance)
        near.scatter_(-1, order, places)
        return _answers(support, near / k[:, None, None]), None

    return predict


def _answers(support: Support, share: Tensor) -> Tensor:
    """What examples say by their shares [tasks, queries, examples]."""
    if support.ways is None:
        return share @ support.y
    return logs(share @ F.one_hot(support.y, support.ways).to(share))


def logs(chances: Tensor) -> Tensor:
    return ((1 - _SMALLEST) * chances + _SMALLEST / chances.shape[-1]).log()


def majority(examples: Choices) -> Predictor:
    """The logarithms of the classes' shares, each with so many examples more than it has."""

    def predict(support: Support, query_x: Tensor) -> tuple[Tensor, None]:
        assert support.ways is not None
        counts = (F.one_hot(support.y, support.ways) * support.weight[..., None]).sum(1) + examples.of(support)[:, None]
        found = (counts / counts.sum(1, keepdim=True)).log()
        return found[:, None].expand(-1, query_x.shape[1], -1), None

    return predict


def forest(leaf: Choices) -> Predictor:
    """Trees of each task on bootstrap samples, with half of the features to choose from at each split; of classes, of their shares.

    `RandomForestRegressor` is the same, and takes twice as long for a handful of examples.
    """

    def of_task(support: Support, x: Any, y: Any, weight: Any, query_x: Any, value: float) -> npt.NDArray[np.float64]:
        x, query_x = x.astype(np.float32), query_x.astype(np.float32)
        if support.ways is not None:
            y = np.eye(support.ways)[y]
        random, found = np.random.default_rng(0), np.zeros((len(query_x), y.shape[1]))
        for number in range(_TREES):
            drawn = random.multinomial(len(x), np.full(len(x), 1 / len(x))) * weight
            tree = DecisionTreeRegressor(min_samples_leaf=int(value), max_features=0.5, random_state=number)
            there = drawn > 0
            tree.fit(np.ascontiguousarray(x[there]), y[there], sample_weight=drawn[there], check_input=False)
            found += tree.tree_.predict(query_x).reshape(found.shape) / _TREES
        return found if support.ways is None else logs(torch.from_numpy(found)).numpy()

    return each_task(of_task, leaf)


def logistic(strength: Choices) -> Predictor:
    """Logistic regression of each task; the share of a task's only class, where it has but one."""

    def of_task(support: Support, x: Any, y: Any, weight: Any, query_x: Any, value: float) -> npt.NDArray[np.float64]:
        assert support.ways is not None
        chances = np.zeros((len(query_x), support.ways))
        if len(np.unique(y)) == 1:
            chances[:, int(y[0])] = 1
        else:
            model = LogisticRegression(C=value, max_iter=200).fit(x, y, weight)
            chances[:, model.classes_] = model.predict_proba(query_x)
        return logs(torch.from_numpy(chances)).numpy()

    return each_task(of_task, strength)


def each_task(of_task: Callable[..., npt.NDArray[np.float64]], values: Choices) -> Predictor:
    """A model of each task by itself."""

    def predict(support: Support, query_x: Tensor) -> tuple[Tensor, None]:
        each = zip(support.examples(), query_x, values.of(support).tolist(), strict=True)
        found = [of_task(support, *(one.numpy() for one in (*examples, x)), value) for examples, x, value in each]
        return torch.from_numpy(np.stack(found)), None

    return predict


def pooled_logistic(setting: Setting) -> Params:
    """weights [features, classes] and constant [classes] of all training rows; nothing where labels are a task's own."""
    rows = pooled(setting, "train")
    if rows is None:
        return {}
    ways, tasks = setting.spec.train.ways or 2, list(validation(setting))

    def of(strength: float) -> Params:
        model = LogisticRegression(C=strength, max_iter=500).fit(rows.x.numpy(), rows.y.numpy(), rows.weight.numpy())
        weights, constant = torch.from_numpy(model.coef_).T, torch.from_numpy(model.intercept_)
        if ways == 2:  # scikit-learn has the log odds of the second class alone
            weights, constant = torch.cat([0 * weights, weights], 1), torch.cat([0 * constant, constant])
        return {"weights": weights.contiguous(), "constant": constant.contiguous()}

    found = {strength: of(strength) for strength in STRENGTHS}

    def predictor(strength: float) -> Predictor:
        return lambda support, query_x: (query_x @ found[strength]["weights"] + found[strength]["constant"], None)  # noqa: ARG005

    return found[best(setting, tasks, STRENGTHS, predictor)]
