"""Few-shot adaptation to new tasks: the protocol, the baselines and the statistics.

Every method starts from shared parameters of its own and is adapted in the same way to the same meta-test tasks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from metaopt_core.distributions.batch import Episode, HeldOutSplit, TaskBatch, TaskDistribution
from metaopt_core.distributions.random import Stream
from metaopt_core.learner import Learner, device_named
from metaopt_core.models import Params
from metaopt_core.progress import bar
from metaopt_core.spec.models import Conv4Spec, ModuleSpec, PipelineSpec, ResNet12Spec

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
    """Adapt every method to every meta-test task.

    A row a method and task: `method`, `task`, `loss_K` and (classification) `accuracy_K` after K = 0 … `evaluate.steps` steps.
    """
    learner, device = Learner.from_spec(spec), device_named(spec.device)
    tasks = test_tasks(spec, distribution).to(device)
    tables = []
    with bar(len(compared), "adapting to new tasks") as progress:
        for done, (method, params) in enumerate(compared.items()):
            curves = learner.curves({name: value.to(device) for name, value in params.items()}, tasks, spec.evaluate.steps)
            columns: dict[str, Any] = {"method": method, "task": np.arange(len(tasks))}
            for name, values in (("loss", curves.loss), ("accuracy", curves.accuracy)):
                if values is not None:
                    columns |= {f"{name}_{step}": column for step, column in enumerate(values.numpy().T)}
            tables.append(pd.DataFrame(columns))
            progress.update(done + 1, LABELS[method])
    return pd.concat(tables, ignore_index=True)


def summarize(spec: PipelineSpec, table: pd.DataFrame) -> dict[str, Any]:
    """The protocol and, for each method and number of steps, the statistics over tasks, as JSON values.

    No task is left out: where a loss is not finite, nor are the mean and its interval (null in JSON), and `diverged` says why.
    """
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
        "methods": {
            method: {"label": LABELS[str(method)], "steps": _by_step(rows, spec.evaluate.steps)}
            for method, rows in table.groupby("method", sort=False)
        },
    }


def _normalization(spec: PipelineSpec) -> str | None:
    """In words; of a network of the user's own, whether it is transductive. None where there is nothing to say."""
    model = spec.train.model
    if isinstance(model, ModuleSpec):
        return "transductive network" if Learner.from_spec(spec).network.transductive else None
    return model.normalized_by if isinstance(model, Conv4Spec | ResNet12Spec) else None


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
