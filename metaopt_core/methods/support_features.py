"""Features of a query that are made from a task's support set, and gradient boosting on them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.methods import boosting, linear
from metaopt_core.methods.alone import nearest
from metaopt_core.methods.contract import Setting
from metaopt_core.methods.from_support import Choices, Pooled, drawn, validation
from metaopt_core.methods.support import Predictor, Support
from metaopt_core.networks.network import Params

_TASKS = 600  # meta-train tasks that are drawn
_NEAREST = (1.0, 3.0)


def fitted(setting: Setting) -> Params:
    """Pooled ridge regression with an offset, and trees for what it leaves of the queries of meta-train tasks."""
    base = linear.with_offset(setting, linear.pooled_ridge(setting), linear.line_of)
    held_out = [_rows(base, tasks) for _, tasks in validation(setting)]
    together = Pooled(*(torch.cat([getattr(rows, name) for rows in held_out]) for name in ("x", "y", "task", "weight")))
    return base | boosting.trees(setting, _rows(base, drawn(setting, _TASKS)), together)


def predictor(params: Mapping[str, Tensor]) -> Predictor:
    before, trees = linear.offset(linear.line_of(params), params), boosting.trees_of(params)

    def predict(support: Support, query_x: Tensor) -> tuple[Tensor, None]:
        known, _ = before(support, query_x)
        return known + trees(features(support, query_x, known)), None

    return predict


def features(support: Support, query_x: Tensor, known: Tensor) -> Tensor:
    """[tasks, queries, features]: the query's own, and of the support set the number of examples, the mean and spread of their
    targets, what is predicted already (`known`), the targets of the nearest examples, and how near the nearest is."""
    queries = query_x.shape[1]
    spread = ((support.y - support.mean[:, None]).square() * support.weight[..., None]).sum(1) / support.count[:, None]
    of_task = torch.cat([support.count[:, None].log(), support.mean, spread.sqrt()], 1)
    near = [nearest(Choices(torch.ones(1), torch.tensor([k], dtype=torch.float64)))(support, query_x)[0] for k in _NEAREST]
    distance = torch.cdist(query_x, support.x).masked_fill(support.weight[:, None] == 0, torch.inf).amin(-1, keepdim=True)
    return torch.cat([query_x, of_task[:, None].expand(-1, queries, -1), known, *near, distance], -1)


def _rows(base: Mapping[str, Tensor], tasks: TaskBatch) -> Pooled:
    """What is left of the queries of tasks; every task counts alike."""
    support, x = Support.of(tasks), tasks.query_x.flatten(2).double()
    known, _ = linear.offset(linear.line_of(base), base)(support, x)
    y = tasks.query_y.double() if tasks.origin is None else tasks.query_y.double() + tasks.origin.double()[:, None]
    weight = torch.ones(x.shape[:2], dtype=x.dtype) if tasks.query_weight is None else tasks.query_weight.double()
    there = weight > 0
    share = weight / weight.sum(1, keepdim=True).clamp(min=1e-12) * weight.sum() / len(weight)
    task = torch.arange(len(x))[:, None].expand(there.shape)
    return Pooled(features(support, x, known)[there], (y - known)[there], task[there], share[there])
