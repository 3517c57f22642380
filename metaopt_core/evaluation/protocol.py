"""Few-shot adaptation to new tasks: the protocol, the baselines and the statistics.

Every method meets the same meta-test tasks. A baseline that takes gradient steps takes them with the step size that suits it best
on the meta-validation tasks, so that none is worse than it has to be. Where the network normalizes by the batch at hand, a method
is also judged on each query without the others (inductive), normalized together with the support set; and, where every step has a
normalization of its own, on each query by itself, normalized by the mean statistics of meta-train tasks' queries in that step (by
collected statistics). Then every method meets each shifted variant of the test tasks.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from metaopt_core.distributions.batch import Episode, HeldOutSplit, TaskBatch, TaskDistribution
from metaopt_core.distributions.random import Stream
from metaopt_core.meta import step_sizes
from metaopt_core.meta.learner import Learner, device_named
from metaopt_core.meta.parallel import side_by_side
from metaopt_core.methods.prototypes import embedding_learner, scores
from metaopt_core.networks.build import without_steps
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.network import Params
from metaopt_core.networks.normalization import Given, Noted, Statistics
from metaopt_core.networks.resnet12 import ResNet12
from metaopt_core.progress import bar
from metaopt_core.spec.models import IN_DISTRIBUTION, Conv4Spec, ModuleSpec, PipelineSpec, ResNet12Spec

_LABELS = {
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

STATISTICS_TASKS = 256
"""Meta-train tasks whose queries' statistics are collected for a step."""

_QUANTILES = {"q05": 0.05, "q25": 0.25, "q75": 0.75, "q95": 0.95}
_WITHOUT_STEPS = ("protonet", "unadapted")
_LEARNED = ("maml", "maml_safe", "unadapted")  # the others are baselines

Array = npt.NDArray[np.float64]
Predict = Callable[[Tensor], Tensor]
"""Queries [tasks, queries, …] → outputs [tasks, queries, outputs], of one method that has seen the support sets."""

TOGETHER, INDUCTIVE, COLLECTED = "", "inductive_", "collected_"
"""By whose statistics queries are normalized, as it stands before the names of measures: all queries' own, those of the support set
and the query, and those collected on meta-train tasks."""


# --- the methods --------------------------------------------------------------------------------------------------------


def label(spec: PipelineSpec, method: str) -> str:
    """A method's name as people write it: that of the spec's algorithm, or of a baseline."""
    return _LABELS.get(method) or spec.train.label + (", safe" if method == "maml_safe" else "")


@dataclass(frozen=True)
class Method:
    """One of the methods that are compared.

    name, label: `maml` and `maml_safe`, whatever the algorithm, or that of a baseline; and as people write it.
    learner, params: what is adapted, and how; of ProtoNet the embedding.
    steps: how many gradient steps it takes.
    statistics: of the queries of meta-train tasks at the horizon, where every step has a normalization of its own.
    """

    name: str
    label: str
    learner: Learner
    params: Params
    steps: int
    statistics: Statistics | None = None

    @property
    def inner_lr(self) -> float:
        """The step size; not a number where there are no steps, or where it is learned."""
        learned = any(name.startswith(step_sizes.PREFIX) for name in self.params)
        return float("nan") if learned or not self.steps else self.learner.inner_lr

    def to(self, device: torch.device) -> "Method":
        params = {name: value.to(device) for name, value in self.params.items()}
        statistics = self.statistics and {name: (m.to(device), v.to(device)) for name, (m, v) in self.statistics.items()}
        return replace(self, params=params, statistics=statistics)

    def on(self, spec: PipelineSpec) -> "Method":
        """The same for tasks of another spec, which may have other ways."""
        other = Learner.from_spec(spec)
        if self.name == "protonet":
            return replace(self, learner=replace(self.learner, loss_scale=other.loss_scale))
        network = other.network if self.name in _LEARNED else without_steps(other.network)
        learner = replace(self.learner, network=network, loss_scale=other.loss_scale)
        return replace(self, learner=learner, params=with_outputs_of(learner, self.params))

    def adapted(self, batch: TaskBatch) -> Iterator[dict[str, Predict]]:
        """What it predicts after 0, 1, … `steps` steps on the support sets, in each way of normalizing that there is for it."""
        if self.name == "protonet":  # puts the support set beside the queries by itself
            together = partial(scores, self.learner.network, self.params, batch.ways, batch.support_x, batch.support_y)
            yield {TOGETHER: together, INDUCTIVE: partial(_one_by_one, together)}
            return
        network, fixed = self.learner.network, None
        if self.statistics and isinstance(network, Conv4 | ResNet12):
            fixed = replace(self.learner, network=replace(network, normalization=Given("per_step", statistics=self.statistics)))
        for step, theta in enumerate(self.learner.adapt(self.params, batch, self.steps)):
            together = partial(self.learner.outputs, theta, step)
            found: dict[str, Predict] = {TOGETHER: together, INDUCTIVE: partial(_one_by_one, together, support_x=batch.support_x)}
            yield found | ({COLLECTED: partial(fixed.outputs, theta, step)} if fixed else {})


def _one_by_one(predict: Predict, query_x: Tensor, support_x: Tensor | None = None) -> Tensor:
    """The outputs for the queries where none shares a batch with another; each is put with the support set, where there is one."""
    queries = query_x.split(1, 1)
    batches = queries if support_x is None else [torch.cat([support_x, query], 1) for query in queries]
    return torch.cat([predict(batch)[:, -1:] for batch in batches], 1)


def query_statistics(learner: Learner, params: Params, tasks: TaskBatch, steps: int) -> Statistics:
    """What a network with a normalization for every step meets in queries after so many steps, the mean over tasks.

    The mean over batches is what running statistics approach (Ioffe, Szegedy 2015, section 3.1; in MAML++ they are collected for
    each step).
    """
    network = learner.network
    assert isinstance(network, Conv4 | ResNet12)

    def of_chunk(chunk: TaskBatch) -> dict[str, tuple[Tensor, Tensor]]:
        *_, theta = learner.adapt(params, chunk, steps)
        noted = Noted("per_step")
        with torch.no_grad():
            replace(learner, network=replace(network, normalization=noted)).outputs(theta, steps, chunk.query_x)
        return noted.noted

    chunks = side_by_side(of_chunk, tasks.split(learner.tasks_at_once(tasks)), tasks.support_x.device)
    layers = {name: zip(*(chunk[name] for chunk in chunks), strict=True) for name in chunks[0]}
    return {
        name: (torch.cat(means).mean(0).cpu(), torch.cat(variances).mean(0).cpu()) for name, (means, variances) in layers.items()
    }


def methods(spec: PipelineSpec, distribution: TaskDistribution, trained: Mapping[str, Params]) -> dict[str, Method]:
    """The methods that are compared, in the order of the results; chooses the step sizes of the baselines, and collects statistics
    where every step has a normalization of its own.

    The baselines adapt all parameters by gradient descent, whatever the spec's own inner loop does. trained: the parameters of each
    phase of training (`maml` and the baselines) on the CPU.
    """
    learner = replace(Learner.from_spec(spec), adaptation="plain")
    plain = learner.as_baseline()
    maml, steps, device = trained["maml"], spec.evaluate.steps, device_named(spec.device)

    def method(name: str, learner: Learner, params: Params, steps: int) -> Method:
        found = Method(name, label(spec, name), learner, params, steps)
        if not learner.network.per_step:
            return found
        trained_on = Episode(spec.train.ways, spec.train.shots, spec.train.queries)
        episode = Episode(spec.train.ways, spec.evaluate_shots, spec.evaluate_queries)
        tasks = distribution.train_sample(trained_on, episode, STATISTICS_TASKS).to(device)
        return replace(found, statistics=query_statistics(learner, found.to(device).params, tasks, min(steps, spec.horizon)))

    found = [method("maml", learner, maml, steps)]
    if learner.can_be_safe:
        found.append(method("maml_safe", replace(learner, adaptation="safe"), maml, steps))
    if "protonet" in trained:
        embedding = replace(embedding_learner(spec), loss_scale=learner.loss_scale)
        found.append(method("protonet", embedding, trained["protonet"], 0))
    initial = {"random": plain.network.init(spec.seed, Stream.BASELINE_PARAMETERS)}
    if "pretrained" in trained:
        initial = {"pretrained": trained["pretrained"]} | initial
    total = len(initial) * len(spec.baseline_lrs)
    validation = held_out_tasks(spec, distribution, "validation").to(device)
    with bar(total, "choosing the baselines' step sizes") as progress:
        for name, params in initial.items():
            losses = {}
            for lr in spec.baseline_lrs:
                tried = method(name, replace(plain, inner_lr=lr), params, spec.horizon).to(device)
                losses[lr] = _score(tried, validation)
                progress.update(len(losses) + list(initial).index(name) * len(spec.baseline_lrs), tried.label)
            best = min(losses, key=lambda lr: losses[lr])
            found.append(method(name, replace(plain, inner_lr=best), params, steps))
    found.append(method("unadapted", learner, maml, 0))
    return {one.name: one for one in found}


def _score(method: Method, tasks: TaskBatch) -> tuple[float, float]:
    """The smaller, the better: the share of wrong answers (in classification), then the loss."""
    x, learner = (tasks.support_x, tasks.support_y, tasks.query_x), method.learner
    outputs = learner.predict(method.params, *x, method.steps)
    loss = learner.loss(outputs, tasks.query_y).mean().item()
    wrong = (outputs.argmax(-1) != tasks.query_y).float().mean().item() if learner.classification else 0.0
    return wrong, loss if np.isfinite(loss) else np.inf


# --- the protocol -------------------------------------------------------------------------------------------------------


def held_out_tasks(spec: PipelineSpec, distribution: TaskDistribution, split: HeldOutSplit) -> TaskBatch:
    """The tasks of a split in the shape that the spec evaluates."""
    return distribution.held_out(split, Episode(spec.train.ways, spec.evaluate_shots, spec.evaluate_queries))


def test_tasks(spec: PipelineSpec, distribution: TaskDistribution) -> TaskBatch:
    """The meta-test tasks in the shape that the spec evaluates."""
    return held_out_tasks(spec, distribution, "test")


def objective(spec: PipelineSpec, distribution: TaskDistribution, params: Params, metric: str, steps: int) -> float:
    """What `evaluate` would measure on the meta-validation tasks: mean `loss` or `accuracy` after a number of steps."""
    device = device_named(spec.device)
    tasks = held_out_tasks(spec, distribution, "validation").to(device)
    curves = Learner.from_spec(spec).curves({name: value.to(device) for name, value in params.items()}, tasks, steps)
    values = curves.accuracy if metric == "accuracy" else curves.loss
    assert values is not None  # the spec asks for accuracy only where there are classes
    return values[:, steps].double().mean().item()


def evaluate(spec: PipelineSpec, distribution: TaskDistribution, compared: Mapping[str, Method]) -> pd.DataFrame:
    """Put every method to every meta-test task, and to every task of each shifted variant.

    A row a variant, method and task: `variant`, `method`, `task`, `inner_lr`, `loss_K` and (classification) `accuracy_K` after
    K = 0 … `evaluate.steps` steps, one that takes none with the same number in all of them. A task has the same number in every
    variant of a regression: there it is the same draw in other ranges. At the horizon, of each query: `confidence`, the probability
    of the predicted class, and `correct`. Where the network normalizes by its batch, `inductive_loss` and `inductive_accuracy`, and
    where it does so for every step, `collected_loss` and `collected_accuracy`, not of shifted variants.
    """
    tables, done, lock = [], 0, Lock()
    with bar(len(compared) * spec.generate.held_out.test_tasks * (1 + len(spec.shifts)), "adapting to new tasks") as progress:

        def note(tasks: int, what: str) -> None:
            nonlocal done
            with lock:  # chunks may be side by side
                done += tasks
                progress.update(done, what)

        for variant, shifted, tasks in _variants(spec, distribution):
            for method in compared.values():
                on_chunk = partial(note, what=f"{method.label}, {variant}")
                inductive = transductive(spec) and variant == IN_DISTRIBUTION
                table = _in_chunks(shifted, method.on(shifted).to(tasks.support_x.device), tasks, inductive, on_chunk)
                labels = {"variant": variant, "method": method.name, "task": np.arange(len(tasks)), "inner_lr": method.inner_lr}
                tables.append(pd.DataFrame(labels).join(table))
    return pd.concat(tables, ignore_index=True)


def _variants(spec: PipelineSpec, distribution: TaskDistribution) -> Iterator[tuple[str, PipelineSpec, TaskBatch]]:
    """Name, spec and meta-test tasks, on the spec's device: as trained for, then each shifted variant."""
    device = device_named(spec.device)
    yield IN_DISTRIBUTION, spec, test_tasks(spec, distribution).to(device)
    for name, shifted in spec.shifted.items():
        yield name, shifted, test_tasks(shifted, distribution.shifted(spec.shifts[name])).to(device)


def _in_chunks(
    spec: PipelineSpec, method: Method, tasks: TaskBatch, inductive: bool, on_chunk: Callable[[int], None]
) -> pd.DataFrame:
    def of_chunk(chunk: TaskBatch) -> pd.DataFrame:
        found = _measured(spec, method, chunk, inductive)
        on_chunk(len(chunk))
        return found

    chunks = tasks.split(method.learner.tasks_at_once(tasks))
    return pd.concat(side_by_side(of_chunk, chunks, tasks.support_x.device), ignore_index=True)


def _measured(spec: PipelineSpec, method: Method, tasks: TaskBatch, inductive: bool) -> pd.DataFrame:
    learner = method.learner
    columns: dict[str, Any] = {}

    def judge(prefix: str, suffix: str, outputs: Tensor) -> None:
        columns[f"{prefix}loss{suffix}"] = learner.loss(outputs, tasks.query_y, tasks.query_weight).cpu().numpy()
        if learner.classification:
            right = (outputs.argmax(-1) == tasks.query_y).float().mean(1)
            columns[f"{prefix}accuracy{suffix}"] = right.cpu().numpy()

    for step, predictions in enumerate(method.adapted(tasks)):
        with torch.no_grad():
            outputs = predictions.pop(TOGETHER)(tasks.query_x)
            judge(TOGETHER, f"_{step}", outputs)
            if step != min(method.steps, spec.horizon):
                continue
            for prefix, predict in predictions.items() if inductive else ():
                judge(prefix, "", predict(tasks.query_x))
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
    return Learner.from_spec(spec).network.transductive


def with_outputs_of(learner: Learner, params: Params) -> Params:
    """Parameters for a learner of another number of ways: output j starts from the learned output j modulo their number.

    A task's labels are in no order, so what was learned for one output is as good for any other, learned step sizes included.
    Outputs that start alike are told apart by their labels from the first step on. On Omniglot, from 5 to 20 ways in 3 steps, that
    is worth 6.1 ± 1.7 points of accuracy over starting from the mean of the learned outputs (or from zeros, which is the same).
    """
    wanted = {name: value.shape for name, value in learner.network.init(0).items()}

    def resized(name: str, value: Tensor) -> Tensor:
        shape = wanted[name.removeprefix(step_sizes.PREFIX)] if name != step_sizes.EVERY else value.shape
        for axis, size in enumerate(reversed(shape), 1):
            if value.shape[-axis] not in (1, size):
                value = value.index_select(-axis, torch.arange(size, device=value.device) % value.shape[-axis])
        return value

    return {name: resized(name, value) for name, value in params.items()}


def over_training(spec: PipelineSpec, distribution: TaskDistribution, snapshots: Mapping[str, Tensor]) -> pd.DataFrame:
    """What training's own validations would have found on the meta-test tasks, which choose nothing.

    snapshots: the parameters at every validation, ITERATION/NAME → tensor. A row a point, as in the curves of training: `phase`,
    `iteration`, `name` (`meta_test_loss`, `meta_test_accuracy`) and `value`; none where adaptation diverged.
    """
    device, learner = device_named(spec.device), Learner.for_training(spec)
    episode = Episode(spec.train.ways, spec.validation_shots, spec.validation_queries)
    tasks = distribution.held_out("test", episode).to(device)
    by_iteration: dict[int, Params] = {}
    for key, tensor in snapshots.items():
        iteration, _, name = key.partition("/")
        by_iteration.setdefault(int(iteration), {})[name] = tensor.to(device)
    rows: list[dict[str, Any]] = []
    with bar(len(by_iteration), "meta-test tasks over training") as progress:
        for at, params in sorted(by_iteration.items()):
            outputs = learner.predict(params, tasks.support_x, tasks.support_y, tasks.query_x, spec.train.validation.steps)
            found = {"meta_test_loss": learner.loss(outputs, tasks.query_y).mean().item()}
            if learner.classification:
                found["meta_test_accuracy"] = (outputs.argmax(-1) == tasks.query_y).float().mean().item()
            rows += [{"phase": "maml", "iteration": at, "name": name, "value": value} for name, value in found.items()]
            progress.update(len(rows) // len(found))
    return pd.DataFrame([row for row in rows if np.isfinite(row["value"])], columns=["phase", "iteration", "name", "value"])


# --- the statistics -----------------------------------------------------------------------------------------------------


def of_method(table: pd.DataFrame, column: str, method: str = "maml") -> dict[str, float | None]:
    """Statistics of one column over the tasks that are not shifted, for one method."""
    return statistics(_by_task(table, column, method))


def paired(
    before: pd.DataFrame, column: str, after: pd.DataFrame, column_after: str, method: str = "maml"
) -> dict[str, float | None]:
    """Statistics over the tasks of what one method does `after` minus what it did `before`: two tables of the same tasks."""
    return statistics(_by_task(after, column_after, method) - _by_task(before, column, method))


def _by_task(table: pd.DataFrame, column: str, method: str) -> Array:
    rows = table[(table["method"] == method) & (table["variant"] == IN_DISTRIBUTION)]
    return rows.sort_values("task")[column].to_numpy(np.float64)


def summarize(spec: PipelineSpec, table: pd.DataFrame) -> dict[str, Any]:
    """The protocol and, for each method and number of steps, the statistics over tasks, as JSON values.

    No task is left out: where a loss is not finite, nor are the mean and its interval (null in JSON), and `diverged` says why.
    `model` is the method that the logged model adapts by; `differences` compares each pair of methods task by task, at the horizon.
    `shifted`: for each variant the same, with what it `changes`, and each method's `change` (`note_changes`).
    """
    rows = dict(iter(table.groupby("variant", sort=False)))
    found = _summary(spec, rows[IN_DISTRIBUTION])
    variants = {name: _summary(shifted, rows[name]) for name, shifted in spec.shifted.items()}
    for name, variant in variants.items():
        variant["changes"] = spec.shifts[name].model_dump(mode="json")
        note_changes(found, variant)
    return found | {"shifted": variants}


def note_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Note at each method of a variant's summary its `change`: by which fraction its mean and median at the horizon (of accuracy
    where there is one, else of loss) lie above or below those on the tasks that are not shifted.
    """
    for method, results in after["methods"].items():
        results["change"] = _change(*(summary["methods"][method]["steps"][summary["horizon"]] for summary in (before, after)))


def _change(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float | None]:
    measure = "accuracy" if before["accuracy"] else "loss"
    old, new = before[measure], after[measure]
    return {name: new[name] / old[name] - 1 if old[name] and new[name] is not None else None for name in ("mean", "median")}


def _summary(spec: PipelineSpec, table: pd.DataFrame) -> dict[str, Any]:
    found = {str(method): rows.reset_index(drop=True) for method, rows in table.groupby("method", sort=False)}
    return {
        "metric": "cross_entropy" if "accuracy_0" in table else "mse",
        "normalization": _normalization(spec),
        "reduction": spec.train.reduction,
        "tasks": int(table["task"].nunique()),
        "ways": spec.train.ways,
        "shots": spec.evaluate_shots,
        "queries": spec.evaluate_queries,
        "inner_lr": spec.evaluate_inner_lr,
        "learned_lr": None if spec.train.inner.learned_lr == "none" else spec.train.inner.learned_lr.replace("_", " "),
        "baseline_lrs": list(spec.baseline_lrs),
        "horizon": spec.horizon,
        "algorithm": spec.train.label,
        "model": spec.evaluate.method,
        "methods": {name: _of_method(spec, name, rows) for name, rows in found.items()},
        "differences": [
            {"of": one, "against": other} | _difference(found[one], found[other], spec.horizon)
            for one, other in combinations(found, 2)
        ],
    }


def _of_method(spec: PipelineSpec, name: str, rows: pd.DataFrame) -> dict[str, Any]:
    inner_lr = float(rows["inner_lr"].iloc[0]) if "inner_lr" in rows else np.nan
    measures = ("loss", "accuracy") if "accuracy_0" in rows else ("loss",)

    def alone(prefix: str) -> dict[str, Any] | None:
        columns = {measure: f"{prefix}{measure}" for measure in measures if f"{prefix}{measure}" in rows}
        return {measure: statistics(rows[column].to_numpy(np.float64), measure) for measure, column in columns.items()} or None

    return {
        "label": label(spec, name),
        "takes_steps": name not in _WITHOUT_STEPS,
        "inner_lr": inner_lr if np.isfinite(inner_lr) else None,
        "steps": _by_step(rows, spec.evaluate.steps),
        "inductive": alone(INDUCTIVE),
        "collected": alone(COLLECTED) if name in _LEARNED else None,
        "calibration": calibration(np.concatenate(list(rows["confidence"])), np.concatenate(list(rows["correct"])))
        if "confidence" in rows
        else None,
    }


def _normalization(spec: PipelineSpec) -> str | None:
    """In words; of a network of the user's own, whether it is transductive. None where there is nothing to say."""
    model = spec.train.model
    if isinstance(model, ModuleSpec):
        return "transductive network" if Learner.from_spec(spec).network.transductive else None
    return model.normalized_by if isinstance(model, Conv4Spec | ResNet12Spec) else None


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
                "loss": statistics(loss, "loss"),
                "accuracy": None if accuracy is None else statistics(accuracy, "accuracy"),
            }
        )
    return found


def statistics(values: Array, measure: str = "loss") -> dict[str, float | None]:
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
