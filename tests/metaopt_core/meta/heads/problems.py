"""Tasks of unequal size for the tests of heads, in float64, and a network whose features they are solved on."""

import torch
from torch import Tensor

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta.heads.head import Head, Rows
from metaopt_core.meta.learner import Learner
from metaopt_core.networks.mlp import MLP
from metaopt_core.networks.network import Params

TASKS, SUPPORT, QUERIES, INPUTS, WIDTH = 3, 6, 5, 2, 4
SIZES = (6, 3, 4)  # support rows of the tasks that count


def network(outputs: int, width: int = WIDTH) -> MLP:
    return MLP((INPUTS, 7, width, outputs))


def tasks(outputs: int, classes: bool = False) -> TaskBatch:
    """Some support rows are padding, and one counts twice."""
    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    def targets(rows: int) -> Tensor:
        return torch.randint(outputs, (TASKS, rows), generator=random) if classes else drawn(TASKS, rows, outputs)

    weight = (torch.arange(SUPPORT) < torch.tensor(SIZES)[:, None]).double()
    weight[0, 1] = 2
    kept = torch.ones(TASKS, QUERIES, dtype=torch.float64)
    kept[1, 3:] = 0
    x, y = drawn(TASKS, SUPPORT, INPUTS), targets(SUPPORT)
    return TaskBatch(x, y, drawn(TASKS, QUERIES, INPUTS), targets(QUERIES), weight, kept)


def initial(head: Head) -> Params:
    """Meta-parameters in float64; a prior mean that is not zero."""
    params = {name: value.double() for name, value in head.initial(head.network.init(0)).items()}
    return {name: value + 0.1 if name.startswith("head.") else value for name, value in params.items()}


def rows(head: Head, params: Params, batch: TaskBatch) -> tuple[Rows, Rows]:
    support, query = (head.network.features(params, x) for x in (batch.support_x, batch.query_x))
    return Rows(support, batch.support_y, batch.support_weight), Rows(query, batch.query_y, batch.query_weight)


def learner(head: Head) -> Learner:
    return Learner(head.network, head.classification, 1.0, 0.01, head=head)


def of_task(task: int, features: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """The support rows of a task that are no padding."""
    return tuple(one[task, : SIZES[task]] for one in (features, *others))
