"""Few-shot adaptation to new tasks: the protocol, the baselines and the statistics.

Every method starts from shared parameters of its own and is adapted in the same way to the same meta-test tasks, and then to each
shifted variant of them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from metaopt_core.distributions.batch import Episode, HeldOutSplit, TaskBatch, TaskDistribution
from metaopt_core.distributions.random import Stream
from metaopt_core.learner import Learner, device_named
from metaopt_core.meta import step_sizes
from metaopt_core.models import Params
from metaopt_core.progress import bar
from metaopt_core.spec.models import IN_DISTRIBUTION, Conv4Spec, PipelineSpec

LABELS = {"maml": "MAML", "pretrained": "pre-trained", "random": "random init"}
CONFIDENCE = 0.95
DIVERGED_FACTOR = 10.0
"""A task has diverged where its loss is not finite, or more than this many times the largest loss of any task before adaptation."""

_QUANTILES = {"q05": 0.05, "q25": 0.25, "q75": 0.75, "q95": 0.95}


def methods(spec: PipelineSpec, maml: Params, pretrained: Params) -> dict[str, Params]:
    """The initial parameters of every method that is compared, in the order of the results."""
    random = Learner.from_spec(spec).network.init(spec.seed, Stream.BASELINE_PARAMETERS)
    return {"maml": maml, "pretrained": pretrained, "random": random}


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


def of_method(table: pd.DataFrame, column: str, method: str = "maml") -> dict[str, float | None]:
    """Statistics of one column over the tasks, for one method."""
    return statistics(_by_task(table, column, method))


def paired(before: pd.DataFrame, column: str, after: pd.DataFrame, column_after: str) -> dict[str, float | None]:
    """Statistics over the tasks of what MAML does `after` minus what it did `before`: two tables of the same meta-test tasks."""
    return statistics(_by_task(after, column_after) - _by_task(before, column))


def _by_task(table: pd.DataFrame, column: str, method: str = "maml") -> npt.NDArray[np.float64]:
    return table.loc[table["method"] == method].sort_values("task")[column].to_numpy(np.float64)


def evaluate(spec: PipelineSpec, distribution: TaskDistribution, compared: Mapping[str, Params]) -> pd.DataFrame:
    """Adapt every method to every meta-test task, and to every task of each shifted variant.

    A row a variant, method and task: `variant`, `method`, `task`, `loss_K` and (classification) `accuracy_K` after K = 0 …
    `evaluate.steps` steps. A task has the same number in every variant of a regression: there it is the same draw in other ranges.
    """
    tables = []
    with bar((1 + len(spec.shifts)) * len(compared), "adapting to new tasks") as progress:
        for variant, shifted, tasks in _variants(spec, distribution):
            learner = Learner.from_spec(shifted)
            for method, params in compared.items():
                curves = learner.curves(_on(tasks, with_outputs_of(learner, params)), tasks, shifted.evaluate.steps)
                columns: dict[str, Any] = {"variant": variant, "method": method, "task": np.arange(len(tasks))}
                for name, values in (("loss", curves.loss), ("accuracy", curves.accuracy)):
                    if values is not None:
                        columns |= {f"{name}_{step}": column for step, column in enumerate(values.numpy().T)}
                tables.append(pd.DataFrame(columns))
                progress.update(len(tables), f"{LABELS[method]}, {variant}")
    return pd.concat(tables, ignore_index=True)


def _variants(spec: PipelineSpec, distribution: TaskDistribution) -> Iterator[tuple[str, PipelineSpec, TaskBatch]]:
    """Name, spec and meta-test tasks, on the spec's device: as trained for, then each shifted variant."""
    device = device_named(spec.device)
    yield IN_DISTRIBUTION, spec, test_tasks(spec, distribution).to(device)
    for name, shifted in spec.shifted.items():
        yield name, shifted, test_tasks(shifted, distribution.shifted(spec.shifts[name])).to(device)


def _on(tasks: TaskBatch, params: Params) -> Params:
    return {name: value.to(tasks.support_x.device) for name, value in params.items()}


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


def summarize(spec: PipelineSpec, table: pd.DataFrame) -> dict[str, Any]:
    """The protocol and, for each method and number of steps, the statistics over tasks, as JSON values.

    No task is left out: where a loss is not finite, nor are the mean and its interval (null in JSON), and `diverged` says why.
    `shifted`: for each variant the same, with what it `changes`, and each method's `change`: by which fraction its last mean and
    median (of accuracy where there is one, else of loss) lie above or below those on the tasks that are not shifted.
    """
    rows = dict(iter(table.groupby("variant", sort=False)))
    found = _summary(spec, rows[IN_DISTRIBUTION])
    variants = {name: _summary(shifted, rows[name]) for name, shifted in spec.shifted.items()}
    for name, variant in variants.items():
        variant["changes"] = spec.shifts[name].model_dump(mode="json")
        for method, results in variant["methods"].items():
            results["change"] = _change(found["methods"][method], results)
    return found | {"shifted": variants}


def _change(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float | None]:
    measure = "accuracy" if before["steps"][-1]["accuracy"] else "loss"
    old, new = (results["steps"][-1][measure] for results in (before, after))
    return {name: new[name] / old[name] - 1 if old[name] and new[name] is not None else None for name in ("mean", "median")}


def _summary(spec: PipelineSpec, table: pd.DataFrame) -> dict[str, Any]:
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
        "methods": {
            method: {"label": LABELS[str(method)], "steps": _by_step(rows, spec.evaluate.steps)}
            for method, rows in table.groupby("method", sort=False)
        },
    }


def _by_step(rows: pd.DataFrame, steps: int) -> list[dict[str, Any]]:
    largest = DIVERGED_FACTOR * float(rows["loss_0"].max())
    found = []
    for step in range(steps + 1):
        loss = rows[f"loss_{step}"].to_numpy(np.float64)
        accuracy = rows[f"accuracy_{step}"].to_numpy(np.float64) if f"accuracy_{step}" in rows else None
        found.append(
            {
                "step": step,
                "diverged": int((~np.isfinite(loss) | (loss > largest)).sum()),
                "loss": statistics(loss),
                "accuracy": None if accuracy is None else statistics(accuracy),
            }
        )
    return found


def statistics(values: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """Mean, half the width of its 95 % interval (Student's t), median and quantiles; null where a number is not finite."""
    ordered = np.where(np.isnan(values), np.inf, values)  # a loss that is not a number is worse than any that is one
    with np.errstate(invalid="ignore"):
        half = stats.sem(values) * stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1) if len(values) > 1 else np.nan
        found = {"mean": values.mean(), "ci95": half, "median": np.quantile(ordered, 0.5, method="nearest")}
        found |= {name: np.quantile(ordered, q, method="nearest") for name, q in _QUANTILES.items()}
    return {name: float(value) if np.isfinite(value) else None for name, value in found.items()}
