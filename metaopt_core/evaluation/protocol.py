"""Few-shot adaptation to new tasks: every method meets the same meta-test tasks, and each shifted variant of them.

Where the network normalizes by the batch at hand, a method is also judged on each query without the others (inductive), normalized
together with the support set; and, where every step has a normalization of its own, on each query by itself, normalized by the mean
statistics of meta-train tasks' queries in that step (by collected statistics).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metaopt_core.distributions.batch import Episode, HeldOutSplit, Prediction, TaskBatch, TaskDistribution
from metaopt_core.meta.learner import Learner, device_named
from metaopt_core.meta.parallel import side_by_side
from metaopt_core.methods.contract import TOGETHER, Adapter, Method, Setting
from metaopt_core.networks.network import Params
from metaopt_core.progress import bar
from metaopt_core.spec.evaluate import IN_DISTRIBUTION
from metaopt_core.spec.metric import Metric
from metaopt_core.spec.pipeline import PipelineSpec


@dataclass(frozen=True)
class Prepared:
    """A method ready for tasks; key and label: its names in this pipeline's results."""

    method: Method
    adapter: Adapter
    key: str
    label: str


@dataclass(frozen=True)
class Measured:
    """What methods did on the test tasks.

    tasks: a row a variant, method and task (see `evaluate`). pooled: variant → method → metric → the number of all tasks together,
    at the horizon.
    """

    tasks: pd.DataFrame
    pooled: Mapping[str, Mapping[str, Mapping[str, float]]]


def prepare(setting: Setting, methods: Sequence[Method], trained: Mapping[str, Params]) -> list[Prepared]:
    """The methods that there are in this setting, in order.

    trained: the parameters to adapt of every trained method, by its key, on the CPU.
    """
    train, found = setting.spec.train, []
    for method in methods:
        adapter = method.prepare(setting, trained)
        if adapter is not None:
            found.append(Prepared(method, adapter, method.key(train), method.label(train)))
    return found


def held_out_tasks(spec: PipelineSpec, distribution: TaskDistribution, split: HeldOutSplit) -> TaskBatch:
    """The tasks of a split in the shape that the spec evaluates."""
    return distribution.held_out(split, Episode(spec.train.ways, spec.evaluate_shots, spec.evaluate_queries))


def test_tasks(spec: PipelineSpec, distribution: TaskDistribution) -> TaskBatch:
    """The meta-test tasks in the shape that the spec evaluates."""
    return held_out_tasks(spec, distribution, "test")


def objective(setting: Setting, params: Params, metric: str, steps: int) -> float:
    """What `evaluate` would measure on the meta-validation tasks: the mean of a metric after a number of steps."""
    spec, device = setting.spec, device_named(setting.spec.device)
    tasks = held_out_tasks(spec, setting.distribution, "validation").to(device)
    learner = Learner.from_spec(spec, setting.shape)
    judge = next(one for one in spec.metrics if one.name == metric)

    def of_chunk(chunk: TaskBatch) -> Tensor:
        *_, theta = learner.adapt(params_there, chunk, steps)
        with torch.no_grad():
            return _of_tasks(judge, learner.outputs(theta, steps, chunk.query_x, chunk.query_weight), chunk, learner.loss_scale)

    params_there = {name: value.to(device) for name, value in params.items()}
    values = torch.cat(side_by_side(of_chunk, tasks.split(learner.tasks_at_once(tasks)), device))
    return values.double().mean().item()


def evaluate(setting: Setting, compared: Sequence[Prepared]) -> Measured:
    """Evaluate every method on every meta-test task, and on every task of each shifted variant.

    A row a variant, method and task: `variant`, `method`, `task`, `inner_lr`, and NAME_K for each metric after K = 0 …
    `evaluate.steps` steps; a method that takes none has the same number in all of them. A task has the same number in every
    variant of a regression: there it is the same draw in other ranges. At the horizon, of each query of a classification:
    `confidence`, the probability of the predicted class, and `correct`. Where the network normalizes by its batch,
    `inductive_NAME`, and where it does so for every step, `collected_NAME`, not of shifted variants.
    """
    spec, tables, pooled = setting.spec, [], dict[str, dict[str, dict[str, float]]]()
    total, done, lock = len(compared) * spec.generate.held_out.test_tasks * (1 + len(spec.shifts)), 0, Lock()
    with bar(total, "adapting to new tasks") as progress:

        def note(tasks: int, what: str) -> None:
            nonlocal done
            with lock:  # chunks may be side by side
                done += tasks
                progress.update(done, what)

        for variant, shifted, tasks in _variants(setting):
            pooled[variant] = {}
            for one in compared:
                device = tasks.support_x.device
                measuring = _Measuring(
                    shifted, one.adapter.on(shifted).to(device), transductive(setting) and variant == IN_DISTRIBUTION
                )
                table, outputs = measuring.all(tasks, partial(note, what=f"{one.label}, {variant}"))
                known = {"variant": variant, "method": one.key, "task": np.arange(len(tasks)), "inner_lr": one.adapter.inner_lr}
                tables.append(pd.DataFrame(known).join(table))
                pooled[variant][one.key] = _pooled(shifted.spec.metrics, outputs, tasks)
    return Measured(pd.concat(tables, ignore_index=True), pooled)


def _variants(setting: Setting) -> Iterator[tuple[str, Setting, TaskBatch]]:
    """Name, setting and meta-test tasks, on the spec's device: as trained for, then each shifted variant."""
    spec, distribution = setting.spec, setting.distribution
    device = device_named(spec.device)
    yield IN_DISTRIBUTION, setting, test_tasks(spec, distribution).to(device)
    for name, shifted in spec.shifted.items():
        tasks = test_tasks(shifted, distribution.shifted(spec.shifts[name].changes)).to(device)
        yield name, replace(setting, spec=shifted), tasks


@dataclass(frozen=True)
class _Measuring:
    """One method on the tasks of one variant. inductive: whether it is judged in every way of normalizing."""

    setting: Setting
    adapter: Adapter
    inductive: bool

    def all(self, tasks: TaskBatch, on_chunk: Callable[[int], None]) -> tuple[pd.DataFrame, Tensor]:
        """The table of the tasks, and the outputs at the horizon [tasks, queries, outputs], on the CPU."""

        def of_chunk(chunk: TaskBatch) -> tuple[pd.DataFrame, Tensor]:
            found = self._chunk(chunk)
            on_chunk(len(chunk))
            return found

        parts = side_by_side(of_chunk, tasks.split(self.adapter.tasks_at_once(tasks)), tasks.support_x.device)
        tables, outputs = zip(*parts, strict=True)
        return pd.concat(tables, ignore_index=True), torch.cat(outputs)

    def _chunk(self, tasks: TaskBatch) -> tuple[pd.DataFrame, Tensor]:
        spec = self.setting.spec
        metrics = [one for one in spec.metrics if not one.pooled]
        scale = float(spec.train.ways or 1) if spec.train.reduction == "sum_over_ways" else 1.0
        columns: dict[str, Any] = {}
        at_horizon = torch.empty(0)

        def judge(prefix: str, suffix: str, outputs: Tensor) -> None:
            for one in metrics:
                columns[f"{prefix}{one.name}{suffix}"] = _of_tasks(one, outputs, tasks, scale).cpu().numpy()

        for step, predictions in enumerate(self.adapter.adapted(tasks)):
            with torch.no_grad():
                outputs = predictions[TOGETHER](tasks.query_x, tasks.query_weight)
                judge(TOGETHER, f"_{step}", outputs)
                if step != min(self.adapter.steps, spec.horizon):
                    continue
                for prefix, predict in predictions.items() if self.inductive else ():
                    if prefix != TOGETHER:
                        judge(prefix, "", predict(tasks.query_x, tasks.query_weight))
                at_horizon = outputs.cpu()
                if self.setting.shape.targets == "classes":
                    confidence, answer = outputs.softmax(-1).max(-1)
                    kept = torch.ones_like(answer, dtype=torch.bool) if tasks.query_weight is None else tasks.query_weight > 0
                    for name, values in (("confidence", confidence), ("correct", answer == tasks.query_y)):
                        columns[name] = [of_task[there].cpu().numpy() for of_task, there in zip(values, kept, strict=True)]
        if not self.adapter.steps:
            columns |= {
                f"{one.name}_{step}": columns[f"{one.name}_0"] for one in metrics for step in range(1, spec.evaluate.steps + 1)
            }
        steps = [f"{one.name}_{step}" for one in metrics for step in range(spec.evaluate.steps + 1)]
        ordered = [name for name in steps if name in columns] + [name for name in columns if name not in steps]
        return pd.DataFrame({name: columns[name] for name in ordered}), at_horizon


def _of_tasks(metric: Metric, outputs: Tensor, tasks: TaskBatch, scale: float) -> Tensor:
    values: Tensor = metric.of(outputs, tasks.query_y, tasks.query_weight)
    return values * scale if metric.follows_reduction and scale != 1.0 else values


def _pooled(metrics: Sequence[Metric], outputs: Tensor, tasks: TaskBatch) -> dict[str, float]:
    """The numbers of the metrics that are of all tasks' queries together."""
    weight = None if tasks.query_weight is None else tasks.query_weight.cpu().flatten()[None]
    y = tasks.query_y.cpu().flatten(0, 1)[None]
    return {one.name: float(one.of(outputs.flatten(0, 1)[None], y, weight)[0]) for one in metrics if one.pooled}


def transductive(setting: Setting) -> bool:
    """Whether predictions for a query depend on the queries beside it."""
    return Learner.from_spec(setting.spec, setting.shape).network.transductive


def predictions(compared: Sequence[Prepared], tasks: TaskBatch, steps: int) -> list[Prediction]:
    """What methods that take steps make of a few tasks' queries before and after so many of them, for a figure."""
    found = []
    for one in compared:
        made = [
            made[TOGETHER] for step, made in enumerate(one.adapter.adapted(tasks)) if step in (0, min(steps, one.adapter.steps))
        ]
        with torch.no_grad():
            before, after = (predict(tasks.query_x, tasks.query_weight).cpu() for predict in (made[0], made[-1]))
        found.append(Prediction(one.label, one.method.color, before, after, steps))
    return found


def over_training(setting: Setting, key: str, snapshots: Mapping[str, Tensor]) -> pd.DataFrame:
    """What training's own validations would have found on the meta-test tasks, which choose nothing.

    key: the method's whose parameters these are. snapshots: its parameters at every validation, ITERATION/NAME → tensor. A row a
    point, as in the curves of training: `phase`, `iteration`, `name` (`meta_test_loss`, `meta_test_accuracy`) and `value`; none
    where adaptation diverged.
    """
    spec = setting.spec
    device, learner = device_named(spec.device), Learner.for_training(spec, setting.shape)
    episode = Episode(spec.train.ways, spec.validation_shots, spec.validation_queries)
    tasks = setting.distribution.held_out("test", episode).to(device)
    by_iteration: dict[int, Params] = {}
    for name, tensor in snapshots.items():
        iteration, _, parameter = name.partition("/")
        by_iteration.setdefault(int(iteration), {})[parameter] = tensor.to(device)
    rows: list[dict[str, Any]] = []
    with bar(len(by_iteration), "meta-test tasks over training") as progress:
        for at, params in sorted(by_iteration.items()):
            outputs = learner.predict_queries(params, tasks, spec.train.validation.steps)
            found = {"meta_test_loss": learner.loss(outputs, tasks.query_y, tasks.query_weight).mean().item()}
            if learner.classification:
                found["meta_test_accuracy"] = learner.accuracy(outputs, tasks.query_y, tasks.query_weight).mean().item()
            rows += [{"phase": key, "iteration": at, "name": name, "value": value} for name, value in found.items()]
            progress.update(len(rows) // len(found))
    return pd.DataFrame([row for row in rows if np.isfinite(row["value"])], columns=["phase", "iteration", "name", "value"])
