"""How much arithmetic an exact meta-gradient needs, counted by hand, independently of any program.

A linear map with M multiply-adds an example (a matrix product or a convolution, padding included) takes

    forward M;  gradients by its weight M and by its input M;  and a Hessian-vector product twice each of them, 6 M in all

except that the first layer needs no gradient by its input: forward and gradient 2 M, Hessian-vector product 2 M. So a support
example takes 4 M (first layer) and 9 M (the others) an inner step, and a query example 2 M and 3 M once. Normalization, ReLU,
losses and Adam aren't counted, nor is anything that is computed a second time to save memory.
"""

from itertools import pairwise

from benchmarks.workloads import FILTERS, HIDDEN, MetaStep


def multiply_adds(meta_step: MetaStep) -> tuple[int, int]:
    """Multiply-adds of one example's forward pass: in the first layer, and in all others together."""
    if meta_step.ways is None:
        widths = (1, *HIDDEN, 1)
        first, *others = (inputs * units for inputs, units in pairwise(widths))
    else:
        sides = (14, 7, 4, 2)  # of 28 × 28 pictures after each 3 × 3 convolution of stride 2
        first = sides[0] ** 2 * 9 * FILTERS
        others = [side**2 * 9 * FILTERS**2 for side in sides[1:]] + [FILTERS * meta_step.ways]
    return first, sum(others)


def meta_gradient_flops(meta_step: MetaStep) -> int:
    """Floating-point operations (two a multiply-add) of the exact meta-gradient of a whole meta-batch."""
    first, others = multiply_adds(meta_step)
    support = meta_step.inner_steps * meta_step.support * (4 * first + 9 * others)
    query = meta_step.query * (2 * first + 3 * others)
    return 2 * meta_step.tasks * (support + query)
