"""Classification tasks from pictures that were drawn for them."""

import torch
from torch import Tensor

from metaopt_core.distributions.batch import TaskBatch


def as_tasks(pictures: Tensor, classes: Tensor, shots: int) -> TaskBatch:
    """pictures [tasks, ways, shots + queries, …] of classes [tasks, ways] → tasks, examples ordered by label: 0, 0, …, 1, 1, …"""
    tasks, ways = classes.shape

    def part(chosen: Tensor) -> tuple[Tensor, Tensor]:
        labels = torch.arange(ways, device=chosen.device).repeat_interleave(chosen.shape[2]).repeat(tasks, 1)
        return chosen.flatten(1, 2).contiguous(), labels  # for one example of each it would be a view of all of them

    return TaskBatch(*part(pictures[:, :, :shots]), *part(pictures[:, :, shots:]), classes=classes)
