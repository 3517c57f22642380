"""Few-shot adaptation to new tasks: the protocol, the baselines and the statistics.

Every method meets the same meta-test tasks. A baseline that takes gradient steps takes them with the step size that suits it best
on the meta-validation tasks, so that none is worse than it has to be. Where the network normalizes by the batch at hand, a method
is also judged on each query without the others (inductive).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from metaopt_core.distributions.batch import Episode, TaskBatch, TaskDistribution
from metaopt_core.distributions.random import Stream
from metaopt_core.learner import Learner, device_named
from metaopt_core.models import Params
from metaopt_core.progress import bar
from metaopt_core.prototypes import embedding_learner, scores
from metaopt_core.spec.models import Conv4Spec, PipelineSpec

LABELS = {
    "maml": "MAML",
    "maml_safe": "MAML, safe",
    "protonet": "ProtoNet",
    "pretrained": "pre-trained",
    "random": "random init",
    "unadapted": "no adaptation",
}
CONFIDENCE = 0.95
WORST_SHARE = 0.1
CALIBRATION_BINS = 15
DIVERGED_FACTOR = 10.0
"""A task has diverged where its loss is not finite, or more than this many times the largest loss of any task before adaptation."""

_QUANTILES = {"q05": 0.05, "q25": 0.25, "q75": 0.75, "q95": 0.95}
_WITHOUT_STEPS = ("protonet", "unadapted")

Array = npt.NDArray[np.float64]
Predict = Callable[[Tensor], Tensor]
"""Queries [tasks, queries, …] → outputs [tasks, queries, outputs], of one method that has seen the support sets."""


# --- the methods --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """One of the methods that are compared.

    learner, params: what is adapted, and how; of ProtoNet the embedding.
    steps: how many gradient steps it takes.
    """

    name: str
    learner: Learner
    params: Params
    steps: int

    @property
    def label(self) -> str:
        return LABELS[self.name]

    @property
    def inner_lr(self) -> float:
        """The step size; not a number where there are no steps, or where it is learned."""
        learned = any(name.startswith("inner_lr.") for name in self.params)
        return float("nan") if learned or not self.steps else self.learner.inner_lr

    def to(self, device: torch.device) -> "Method":
        return replace(self, params={name: value.to(device) for name, value in self.params.items()})

    def adapted(self, batch: TaskBatch) -> Iterator[Predict]:
        """What it predicts after 0, 1, … `steps` steps on the support sets."""
        if self.name == "protonet":
            yield partial(scores, self.learner.network, self.params, batch.support_x, batch.support_y)
            return
        for theta in self.learner.adapt(self.params, batch, self.steps):
            yield partial(self.learner.network, theta)

    def one_by_one(self, predict: Predict, batch: TaskBatch) -> Tensor:
        """The outputs for the queries where none shares a batch with another: each is put with the support set alone."""
        queries = batch.query_x.split(1, 1)
        if self.name == "protonet":  # puts the support set beside the queries by itself
            return torch.cat([predict(query) for query in queries], 1)
        return torch.cat([predict(torch.cat([batch.support_x, query], 1))[:, -1:] for query in queries], 1)


def methods(spec: PipelineSpec, distribution: TaskDistribution, trained: Mapping[str, Params]) -> dict[str, Method]:
    """The methods that are compared, in the order of the results; chooses the step sizes of the baselines.

    trained: the parameters of each phase of training (`maml` and the baselines) on the CPU.
    """
    learner = replace(Learner.from_spec(spec), adaptation="plain")
    maml, steps = trained["maml"], spec.evaluate.steps
    found = [Method("maml", learner, maml, steps), Method("maml_safe", replace(learner, adaptation="safe"), maml, steps)]
    if "protonet" in trained:
        embedding = replace(embedding_learner(spec), loss_scale=learner.loss_scale)
        found.append(Method("protonet", embedding, trained["protonet"], 0))
    initial = {"random": learner.network.init(spec.seed, Stream.BASELINE_PARAMETERS)}
    if "pretrained" in trained:
        initial = {"pretrained": trained["pretrained"]} | initial
    device, total = device_named(spec.device), len(initial) * len(spec.baseline_lrs)
    validation = _held_out(spec, distribution, "validation").to(device)
    with bar(total, "choosing the baselines' step sizes") as progress:
        for name, params in initial.items():
            losses = {}
            for lr in spec.baseline_lrs:
                tried = Method(name, replace(learner, inner_lr=lr), params, spec.horizon).to(device)
                losses[lr] = _score(tried, validation)
                progress.update(len(losses) + list(initial).index(name) * len(spec.baseline_lrs), LABELS[name])
            best = min(losses, key=lambda lr: losses[lr])
            found.append(Method(name, replace(learner, inner_lr=best), params, steps))
    found.append(Method("unadapted", learner, maml, 0))
    return {method.name: method for method in found}


def _score(method: Method, tasks: TaskBatch) -> tuple[float, float]:
    """The smaller, the better: the share of wrong answers (in classification), then the loss."""
    x, learner = (tasks.support_x, tasks.support_y, tasks.query_x), method.learner
    outputs = learner.predict(method.params, *x, method.steps)
    loss = learner.loss(outputs, tasks.query_y).mean().item()
    wrong = (outputs.argmax(-1) != tasks.query_y).float().mean().item() if learner.classification else 0.0
    return wrong, loss if np.isfinite(loss) else np.inf


# --- the protocol -------------------------------------------------------------------------------------------------------


def test_tasks(spec: PipelineSpec, distribution: TaskDistribution) -> TaskBatch:
    """The meta-test tasks in the shape that the spec evaluates."""
    return _held_out(spec, distribution, "test")


def _held_out(spec: PipelineSpec, distribution: TaskDistribution, split: Any) -> TaskBatch:
    return distribution.held_out(split, Episode(spec.train.ways, spec.evaluate_shots, spec.evaluate_queries))


def evaluate(spec: PipelineSpec, distribution: TaskDistribution, compared: Mapping[str, Method]) -> pd.DataFrame:
    """Put every method to every meta-test task.

    A row a method and task: `method`, `task`, `inner_lr`, `loss_K` and (classification) `accuracy_K` after K = 0 … `evaluate.steps`
    steps, one that takes none with the same number in all of them. At the horizon, of each query: `confidence`, the probability of
    the predicted class, and `correct`. Where the network normalizes by its batch, `inductive_loss` and `inductive_accuracy`.
    """
    tasks = test_tasks(spec, distribution).to(device_named(spec.device))
    tables = []
    with bar(len(compared) * len(tasks), "adapting to new tasks") as progress:
        for done, method in enumerate(compared.values()):
            rows = []
            for chunk in method.learner.chunks(tasks):
                rows.append(_measured(spec, method.to(tasks.support_x.device), chunk))
                progress.update(done * len(tasks) + sum(map(len, rows)), method.label)
            table = pd.concat(rows, ignore_index=True)
            labels = {"method": method.name, "task": np.arange(len(tasks)), "inner_lr": method.inner_lr}
            tables.append(pd.DataFrame(labels).join(table))
    return pd.concat(tables, ignore_index=True)


def _measured(spec: PipelineSpec, method: Method, tasks: TaskBatch) -> pd.DataFrame:
    learner = method.learner
    columns: dict[str, Any] = {}

    def judge(prefix: str, suffix: str, outputs: Tensor) -> None:
        columns[f"{prefix}loss{suffix}"] = learner.loss(outputs, tasks.query_y, tasks.query_weight).cpu().numpy()
        if learner.classification:
            right = (outputs.argmax(-1) == tasks.query_y).float().mean(1)
            columns[f"{prefix}accuracy{suffix}"] = right.cpu().numpy()

    for step, predict in enumerate(method.adapted(tasks)):
        with torch.no_grad():
            outputs = predict(tasks.query_x)
            judge("", f"_{step}", outputs)
            if step != min(method.steps, spec.horizon):
                continue
            if transductive(spec):
                judge("inductive_", "", method.one_by_one(predict, tasks))
            if learner.classification:
                confidence, answer = outputs.softmax(-1).max(-1)
                columns["confidence"] = list(confidence.cpu().numpy())
                columns["correct"] = list((answer == tasks.query_y).cpu().numpy())
    for measure in ("loss", "accuracy") if learner.classification else ("loss",):
        columns |= {f"{measure}_{step}": columns[f"{measure}_0"] for step in range(1, spec.evaluate.steps + 1) if not method.steps}
    steps = [f"{measure}_{step}" for measure in ("loss", "accuracy") for step in range(spec.evaluate.steps + 1)]
    ordered = [name for name in steps if name in columns] + [name for name in columns if name not in steps]
    return pd.DataFrame({name: columns[name] for name in ordered})


def transductive(spec: PipelineSpec) -> bool:
    """Whether predictions for a query depend on the queries beside it."""
    return isinstance(spec.train.model, Conv4Spec) and spec.train.model.batch_norm == "transductive"


# --- the statistics -----------------------------------------------------------------------------------------------------


def summarize(spec: PipelineSpec, table: pd.DataFrame) -> dict[str, Any]:
    """The protocol and, for each method and number of steps, the statistics over tasks, as JSON values.

    No task is left out: where a loss is not finite, nor are the mean and its interval (null in JSON), and `diverged` says why.
    `model` is the method that the logged model adapts by; `differences` compares each pair of methods task by task, at the horizon.
    """
    found = {str(method): rows.reset_index(drop=True) for method, rows in table.groupby("method", sort=False)}
    model = spec.train.model
    return {
        "metric": "cross_entropy" if "accuracy_0" in table else "mse",
        "batch_norm": model.batch_norm if isinstance(model, Conv4Spec) else None,
        "reduction": spec.train.reduction,
        "tasks": int(table["task"].nunique()),
        "ways": spec.train.ways,
        "shots": spec.evaluate_shots,
        "queries": spec.evaluate_queries,
        "inner_lr": spec.evaluate_inner_lr,
        "learned_lr": None if spec.train.inner.learned_lr == "none" else spec.train.inner.learned_lr.replace("_", " "),
        "baseline_lrs": list(spec.baseline_lrs),
        "horizon": spec.horizon,
        "model": "maml" if spec.evaluate.adaptation == "plain" else "maml_safe",
        "methods": {name: _of_method(spec, name, rows) for name, rows in found.items()},
        "differences": [
            {"of": one, "against": other} | _difference(found[one], found[other], spec.horizon)
            for one, other in combinations(found, 2)
        ],
    }


def _of_method(spec: PipelineSpec, name: str, rows: pd.DataFrame) -> dict[str, Any]:
    inner_lr = float(rows["inner_lr"].iloc[0]) if "inner_lr" in rows else np.nan
    inductive = {measure: rows.get(f"inductive_{measure}") for measure in ("loss", "accuracy")}
    return {
        "label": LABELS[name],
        "takes_steps": name not in _WITHOUT_STEPS,
        "inner_lr": inner_lr if np.isfinite(inner_lr) else None,
        "steps": _by_step(rows, spec.evaluate.steps),
        "inductive": {
            measure: None if values is None else _statistics(values.to_numpy(np.float64), measure)
            for measure, values in inductive.items()
        }
        if inductive["loss"] is not None
        else None,
        "calibration": calibration(np.concatenate(list(rows["confidence"])), np.concatenate(list(rows["correct"])))
        if "confidence" in rows
        else None,
    }


def _by_step(rows: pd.DataFrame, steps: int) -> list[dict[str, Any]]:
    start = rows["loss_0"].to_numpy(np.float64)
    largest = DIVERGED_FACTOR * float(start.max())
    found = []
    for step in range(steps + 1):
        loss = rows[f"loss_{step}"].to_numpy(np.float64)
        accuracy = rows[f"accuracy_{step}"].to_numpy(np.float64) if f"accuracy_{step}" in rows else None
        found.append(
            {
                "step": step,
                "diverged": int((~np.isfinite(loss) | (loss > largest)).sum()),
                "improved": float((loss < start).mean()),
                "loss": _statistics(loss, "loss"),
                "accuracy": None if accuracy is None else _statistics(accuracy, "accuracy"),
            }
        )
    return found


def _statistics(values: Array, measure: str) -> dict[str, float | None]:
    """Mean, half the width of its 95 % interval, median, quantiles and the mean of the 10 % worst; null where not finite."""
    ordered = np.where(np.isnan(values), np.inf, values)  # a loss that is not a number is worse than any that is one
    found = _mean(values) | {"median": np.quantile(ordered, 0.5, method="nearest")}
    found |= {name: np.quantile(ordered, q, method="nearest") for name, q in _QUANTILES.items()}
    worst = int(np.ceil(WORST_SHARE * len(values)))
    found["worst"] = np.sort(ordered)[-worst:].mean() if measure == "loss" else np.sort(ordered)[:worst].mean()
    return _finite(found)


def _mean(values: Array) -> dict[str, float]:
    """The mean over tasks and half the width of its 95 % interval (Student's t)."""
    with np.errstate(invalid="ignore"):
        half = stats.sem(values) * stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1) if len(values) > 1 else np.nan
        return {"mean": values.mean(), "ci95": half}


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def _difference(one: pd.DataFrame, other: pd.DataFrame, step: int) -> dict[str, Any]:
    """Task by task, one method's measure minus another's; `better`: the share of tasks in which the one has the smaller loss."""
    found: dict[str, Any] = {}
    for measure in ("loss", "accuracy"):
        name = f"{measure}_{step}"
        pair = (rows[name].to_numpy(np.float64) for rows in (one, other)) if name in one else None
        with np.errstate(invalid="ignore"):
            found[measure] = _finite(_mean(next(pair) - next(pair))) if pair else None
    found["better"] = float((one[f"loss_{step}"] < other[f"loss_{step}"]).mean())
    return found


def calibration(confidence: npt.NDArray[Any], correct: npt.NDArray[Any]) -> dict[str, Any]:
    """Expected calibration error over all queries, in bins of equal width, and the bins (Guo et al. 2017, equation 3).

    confidence, correct: [queries]. A bin that holds no query is left out.
    """
    place = np.minimum((np.nan_to_num(confidence) * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = [
        {
            "confidence": float(np.nan_to_num(confidence[place == index]).mean()),
            "accuracy": float(correct[place == index].mean()),
            "share": float((place == index).mean()),
        }
        for index in np.unique(place)
    ]
    return {"ece": sum(part["share"] * abs(part["confidence"] - part["accuracy"]) for part in bins), "bins": bins}
