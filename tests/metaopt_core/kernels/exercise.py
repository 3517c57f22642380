"""Every compiled loop on tasks of many sizes, for a process that watches each read and write (AddressSanitizer).

python exercise.py FOLDER: the compiled library is kept in FOLDER.
"""

import itertools
import sys
from pathlib import Path

import torch
from torch import Tensor

from metaopt_core import kernels


def pictures(tasks: int, examples: int, size: tuple[int, int], channels: int, filters: int, dtype: torch.dtype) -> None:
    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype)

    x, own = random(tasks, examples, *size, channels), random(tasks, 3, 3, channels, filters)
    for weight in (own, own[:1].expand(own.shape)):
        y = kernels.convolve(x, weight)
        kernels.convolve_input_gradient(y, weight, x.shape)
        kernels.convolve_weight_gradient(x, y)
    scale, shift = random(tasks, filters), random(tasks, filters)
    z, at = kernels.norm_relu(y, scale, shift, 1e-5)
    kernels.norm_relu_gradient(z, at)
    kernels.norm_relu_second(z, scale, shift, z, at)


def perceptron(tasks: int, support: int, queries: int, widths: tuple[int, ...], dtype: torch.dtype) -> None:
    def examples(count: int, weighted: bool) -> kernels.SquaredErrorLoops:
        x, y = (torch.randn(tasks, count, width, dtype=dtype) for width in (widths[0], widths[-1]))
        return kernels.SquaredErrorLoops(widths, x, y, torch.rand(tasks, count, dtype=dtype) if weighted else None, 1 / count)

    count = sum((inputs + 1) * units for inputs, units in itertools.pairwise(widths))
    own = torch.randn(tasks, count, dtype=dtype)
    for theta, weighted in ((own, False), (own[:1].expand(own.shape), True)):
        loops, query = examples(support, weighted), examples(queries, weighted)
        work = loops.work()
        _, gradient = loops.gradient(theta, work)
        loops.product(theta, gradient, work)
        loops.exact(query, theta, 0.01, 2)


def main(folder: Path) -> None:
    kernels.configure(folder)
    sizes = [(1, 1), (2, 3), (5, 4), (7, 7), (14, 13)]
    for dtype in (torch.float32, torch.float64):
        assert kernels.usable(torch.empty(0, dtype=dtype))
        for (tasks, examples), size, channels, filters in itertools.product(
            [(1, 1), (2, 5)], sizes, (1, 2, 5, 16), (1, 3, 17, 37, 64, 65)
        ):
            pictures(tasks, examples, size, channels, filters, dtype)
        for tasks, support, queries, widths in itertools.product(
            (1, 3), (1, 5, 11), (1, 7), ((1, 1), (3, 1), (1, 40, 40, 1), (7, 5, 33, 2), (2, 64, 3, 9))
        ):
            perceptron(tasks, support, queries, widths, dtype)
    print("exercised")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
