"""Few-shot adaptation to new tasks: every method is evaluated on the same meta-test tasks, and on each shifted variant of them.

If the network normalizes by the current batch, a method is also judged on each query without the others (inductive), normalized
together with the support set; and, if every step has its own normalization, on each query by itself, normalized by the mean
statistics of meta-train tasks' queries in that step (collected statistics).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from scipy.special import ndtri
from torch import Tensor

from metaopt_core.distributions.batch import Episode, HeldOutSplit, Prediction, TaskBatch, TaskDistribution, Tasks
from metaopt_core.evaluation.metrics.weighting import mean_over_queries
from metaopt_core.meta.learner import Learner, device_named
from metaopt_core.meta.parallel import side_by_side
from metaopt_core.methods.contract import DEVIATION, TOGETHER, Adapter, Method, Setting
from metaopt_core.networks.network import Params
from metaopt_core.progress import bar
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.evaluate import IN_DISTRIBUTION
from metaopt_core.spec.metric import Metric
from metaopt_core.spec.pipeline import PipelineSpec

INTERVALS, COVERAGE = (50, 80, 95), "coverage_"
"""The intervals of predictive distributions whose coverage is measured, in percent, and what is before them in a column's name."""

Answers = tuple[Tensor, Tensor, Tensor | None]
"""Outputs [tasks, queries, outputs], targets and weights of some tasks' queries, on the CPU."""


@dataclass(frozen=True)
class Prepared:
    """A method ready for tasks; key and label: its names in this pipeline's results."""

    method: Method
    adapter: Adapter
    key: str
    label: str


@dataclass(frozen=True)
class Measured:
    """Results of methods on the test tasks.

    tasks: one row for each variant, method, task and support set (see `evaluate`). pooled: variant → method → metric → the number
    of all tasks together, at the horizon.
    """

    tasks: pd.DataFrame
    pooled: Mapping[str, Mapping[str, Mapping[str, float]]]


def prepare(setting: Setting, methods: Sequence[Method], trained: Mapping[str, Params]) -> list[Prepared]:
    """The methods that are possible in this setting, in order.

    trained: the parameters to adapt of every trained method, by its key, on the CPU.
    """
    train, found = setting.spec.train, []
    for method in methods:
        adapter = method.prepare(setting, trained)
        if adapter is not None:
            found.append(Prepared(method, adapter, method.key(train), method.label(train)))
    return found


def held_out_tasks(
    spec: PipelineSpec, distribution: TaskDistribution, split: HeldOutSplit, shots: int | None = None, repeat: int = 0
) -> Tasks:
    """The tasks of a split in the shape that the spec evaluates, with as many support examples as it says at most."""
    episode = Episode(spec.train.ways, shots or spec.evaluate_shots, spec.evaluate_queries, repeat=repeat)
    return Tasks.held_out(distribution, split, episode)


def test_tasks(spec: PipelineSpec, distribution: TaskDistribution) -> Tasks:
    """The meta-test tasks in the shape that the spec evaluates, with as many support examples as it says at most."""
    return held_out_tasks(spec, distribution, "test")


def objective(setting: Setting, params: Params, metric: str, steps: int) -> float:
    """What `evaluate` would measure on the meta-validation tasks: the mean of a metric after a number of steps."""
    spec, device = setting.spec, device_named(setting.spec.device)
    tasks = held_out_tasks(spec, setting.distribution, "validation")
    learner = Learner.from_spec(spec, setting.shape)
    judge = next(one for one in spec.metrics if one.name == metric)

    def of_chunk(chunk: TaskBatch) -> Tensor:
        theta = learner.adapted(params_there, chunk, steps)
        with torch.no_grad():
            return _of_tasks(judge, learner.outputs(theta, steps, chunk.query_x, chunk.query_weight), chunk, learner.loss_scale)

    params_there = {name: value.to(device) for name, value in params.items()}
    values = [
        found for part in tasks.parts(device) for found in side_by_side(of_chunk, part.split(learner.tasks_at_once(part)), device)
    ]
    return torch.cat(values).double().mean().item()


def evaluate(setting: Setting, compared: Sequence[Prepared], split: HeldOutSplit = "test") -> Measured:
    """Evaluate every method on every meta-test task, with every number of support examples and as often as the spec says, and on
    every task of each shifted variant.

    A row a variant, method and task: `variant`, `method`, `task`, `inner_lr`, and NAME_K for each metric after K = 0 …
    `evaluate.steps` steps; a method that takes fewer keeps the number after its last one. A task has the same number in every
    variant of a regression: there it is the same draw in other ranges. With several numbers of support examples, or several
    repeats, there is a row for each, with `shots` and `repeat`. At the horizon, of methods that say how sure they are,
    `coverage_50` and so on: the share of a task's queries that lie within such an interval; of each query of a classification:
    `confidence`, the probability of the predicted class, and `correct`; of the task, `groups`: its classes.
    Where the network normalizes by its batch,
    `inductive_NAME`, and where it does so for every step, `collected_NAME`, not of shifted variants.
    split: that of the tasks; the meta-validation tasks are evaluated as trained for alone, and once.
    """
    spec, device, tables = setting.spec, device_named(setting.spec.device), []
    pooled: dict[str, dict[str, dict[str, float]]] = {}
    several = len(spec.evaluated_shots) > 1 or spec.evaluate.repeats > 1
    variants = list(_variants(setting, split))
    total, done, lock = len(compared) * sum(len(one.tasks) for one in variants), 0, Lock()
    with bar(total, "adapting to new tasks") as progress:

        def note(tasks: int, what: str) -> None:
            nonlocal done
            with lock:  # chunks may run in parallel
                done += tasks
                progress.update(done, what)

        for variant in variants:
            tasks, at_most = variant.tasks.kept(), variant.shots == variant.setting.spec.evaluate_shots
            for one in compared:
                measuring = _Measuring(
                    variant.setting,
                    one.adapter.on(variant.setting).to(device),
                    transductive(setting) and variant.name == IN_DISTRIBUTION and at_most,
                )
                table, answers = measuring.all(tasks, device, partial(note, what=f"{one.label}, {variant.name}"))
                known: dict[str, Any] = {"variant": variant.name, "method": one.key}
                known |= {"shots": variant.shots, "repeat": variant.repeat} if several else {}
                known["task"] = np.arange(len(tasks)) if tasks.numbers is None else np.asarray(tasks.numbers)
                known["inner_lr"] = one.adapter.inner_lr
                tables.append(pd.DataFrame(known).join(table))
                if at_most:  # a metric of several draws is the mean of theirs
                    of_variant = pooled.setdefault(variant.name, {}).setdefault(one.key, {})
                    for name, value in _pooled(variant.setting.spec.metrics, answers).items():
                        of_variant[name] = of_variant.get(name, 0.0) + (value - of_variant.get(name, 0.0)) / (variant.repeat + 1)
    return Measured(pd.concat(tables, ignore_index=True), pooled)


@dataclass(frozen=True)
class _Variant:
    """Tasks to evaluate: of which variant, in which setting, with how many support examples and which draw of them."""

    name: str
    setting: Setting
    shots: int
    repeat: int
    tasks: Tasks


def _variants(setting: Setting, split: HeldOutSplit) -> Iterator[_Variant]:
    """The unshifted meta-test tasks, then each shifted variant."""
    spec, distribution = setting.spec, setting.distribution
    repeats = range(spec.evaluate.repeats if split == "test" else 1)
    for shots in spec.evaluated_shots:
        for repeat in repeats:
            tasks = held_out_tasks(spec, distribution, split, shots, repeat)
            yield _Variant(IN_DISTRIBUTION, setting, shots, repeat, tasks)
    for name, shifted in spec.shifted.items() if split == "test" else ():
        of_variant, other = replace(setting, spec=shifted), distribution.shifted(spec.shifts[name].changes)
        for repeat in repeats:
            tasks = held_out_tasks(shifted, other, split, repeat=repeat)
            yield _Variant(name, of_variant, shifted.evaluate_shots, repeat, tasks)


@dataclass(frozen=True)
class _Measuring:
    """One method on the tasks of one variant. inductive: whether it is judged in every way of normalizing."""

    setting: Setting
    adapter: Adapter
    inductive: bool

    def all(self, tasks: Tasks, device: torch.device, on_chunk: Callable[[int], None]) -> tuple[pd.DataFrame, list[Answers]]:
        """The table of the tasks, and the answers of each chunk at the horizon."""

        def of_chunk(chunk: TaskBatch) -> tuple[pd.DataFrame, Answers]:
            table, outputs = self._chunk(chunk)
            on_chunk(len(chunk))
            weight = None if chunk.query_weight is None else chunk.query_weight.cpu()
            return table, (outputs, chunk.query_y.cpu(), weight)

        found = []
        for part in tasks.parts(device):
            found += side_by_side(of_chunk, part.split(self.adapter.tasks_at_once(part)), device)
        return pd.concat([table for table, _ in found], ignore_index=True), [answers for _, answers in found]

    def _chunk(self, tasks: TaskBatch) -> tuple[pd.DataFrame, Tensor]:
        spec = self.setting.spec
        metrics = [one for one in spec.metrics if not one.pooled]
        scale = float(spec.train.ways or 1) if spec.train.reduction == "sum_over_ways" else 1.0
        columns: dict[str, Any] = {}
        at_horizon = torch.empty(0)

        def judge(prefix: str, suffix: str, outputs: Tensor) -> None:
            for one in metrics:
                values = _of_tasks(one, outputs, tasks, scale) * _unit(self.setting.shape) ** one.power
                columns[f"{prefix}{one.name}{suffix}"] = values.cpu().numpy()

        for step, predictions in enumerate(self.adapter.adapted(tasks)):
            with torch.no_grad():
                outputs = predictions[TOGETHER](tasks.query_x, tasks.query_weight)
                judge(TOGETHER, f"_{step}", outputs)
                if step != min(self.adapter.steps, spec.horizon):
                    continue
                for prefix, predict in predictions.items() if self.inductive else ():
                    if prefix not in (TOGETHER, DEVIATION):
                        judge(prefix, "", predict(tasks.query_x, tasks.query_weight))
                at_horizon = outputs.cpu()
                if DEVIATION in predictions:
                    deviation = predictions[DEVIATION](tasks.query_x, tasks.query_weight)
                    for percent, share in _coverage(outputs, deviation, tasks).items():
                        columns[f"{COVERAGE}{percent}"] = share.cpu().numpy()
                if self.setting.shape.targets == "classes":
                    confidence, answer = outputs.softmax(-1).max(-1)
                    kept = torch.ones_like(answer, dtype=torch.bool) if tasks.query_weight is None else tasks.query_weight > 0
                    for name, values in (("confidence", confidence), ("correct", answer == tasks.query_y)):
                        columns[name] = [of_task[there].cpu().numpy() for of_task, there in zip(values, kept, strict=True)]
        for step in range(self.adapter.steps + 1, spec.evaluate.steps + 1):
            columns |= {f"{one.name}_{step}": columns[f"{one.name}_{self.adapter.steps}"] for one in metrics}
        if tasks.classes is not None:
            columns["groups"] = list(tasks.classes.cpu().numpy())
        steps = [f"{one.name}_{step}" for one in metrics for step in range(spec.evaluate.steps + 1)]
        ordered = [name for name in steps if name in columns] + [name for name in columns if name not in steps]
        return pd.DataFrame({name: columns[name] for name in ordered}), at_horizon


def _of_tasks(metric: Metric, outputs: Tensor, tasks: TaskBatch, scale: float) -> Tensor:
    support = {"support_mean": tasks.support_mean} if "support_mean" in metric.takes else {}
    values: Tensor = metric.of(outputs, tasks.query_y, tasks.query_weight, **support)
    return values * scale if metric.follows_reduction and scale != 1.0 else values


def _unit(shape: TaskShape) -> float:
    """What a target of 1 is in the target's own unit; 1 where several targets have units of their own."""
    return shape.target_scales[0] if len(shape.target_scales) == 1 else 1.0


def _coverage(outputs: Tensor, deviation: Tensor, tasks: TaskBatch) -> dict[int, Tensor]:
    """The share of a task's queries [tasks] within the normal interval that is to hold so many percent of them."""
    off = (outputs - tasks.query_y).abs() / deviation
    within = {percent: (off <= ndtri(0.5 + percent / 200)).to(outputs.dtype).mean(-1) for percent in INTERVALS}
    return {percent: mean_over_queries(each, tasks.query_weight) for percent, each in within.items()}


def _pooled(metrics: Sequence[Metric], answers: Sequence[Answers]) -> dict[str, float]:
    """The metrics that are computed over all tasks' queries together."""
    wanted = [one for one in metrics if one.pooled]
    if not wanted:
        return {}
    outputs = torch.cat([of_chunk for of_chunk, _, _ in answers]).flatten(0, 1)[None]
    y = torch.cat([of_chunk for _, of_chunk, _ in answers]).flatten(0, 1)[None]
    weights = [weight.flatten() for _, _, weight in answers if weight is not None]
    return {one.name: float(one.of(outputs, y, torch.cat(weights)[None] if weights else None)[0]) for one in wanted}


def transductive(setting: Setting) -> bool:
    """Whether predictions for a query depend on the other queries."""
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


def over_training(setting: Setting, key: str, snapshots: Path) -> pd.DataFrame:
    """The results that validation during training would have had on the meta-test tasks, which are not used for any choice.

    key: the method's whose parameters these are. snapshots: its parameters at every validation, a file ITERATION.safetensors
    each. A row a point, as in the curves of training: `phase`, `iteration`, `name` (`meta_test_loss`, `meta_test_accuracy`) and
    `value`; none where adaptation diverged.
    """
    spec = setting.spec
    device, learner = device_named(spec.device), Learner.for_training(spec, setting.shape)
    episode = Episode(spec.train.ways, spec.validation_shots, spec.validation_queries, spec.validation_fewest_shots)
    tasks = Tasks.held_out(setting.distribution, "test", episode).kept()
    files = sorted(snapshots.iterdir(), key=lambda path: int(path.stem))
    rows: list[dict[str, Any]] = []
    with bar(len(files), "meta-test tasks over training") as progress:
        for count, file in enumerate(files, 1):
            params = {name: value.to(device) for name, value in load_file(file).items()}
            predict = partial(_predicted, learner, params, spec.validation_steps)
            found = learner.means(predict, tasks, device, prefix="meta_test_")
            rows += [{"phase": key, "iteration": int(file.stem), "name": name, "value": value} for name, value in found.items()]
            progress.update(count)
    return pd.DataFrame([row for row in rows if np.isfinite(row["value"])], columns=["phase", "iteration", "name", "value"])


def _predicted(learner: Learner, params: Params, steps: int, tasks: TaskBatch) -> Tensor:
    return learner.predict_queries(params, tasks, steps)
