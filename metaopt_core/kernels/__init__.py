"""Compiled loops for what PyTorch has no single operation for: optional, and behind this interface alone.

    configure(folder)   where the compiled library is kept; by default in the user's cache folder
    usable(*tensors)    whether the loops are there and can work on such tensors

and, for tensors that are usable, the operations of `operations` (convolution, batch norm with ReLU, the squared error of a small
fully connected network). They have no derivatives of their own; whoever calls them builds derivatives out of them. Each checks the
type, shape and layout of every tensor before C reads it, and raises ValueError.

The reference is PyTorch: every caller does the same with PyTorch's operations where `usable` says no (on a GPU, in other types of
numbers, while torch.compile traces, without a C compiler), and the tests hold one against the other. If the library can't be made,
one line says so.
"""

from metaopt_core.kernels.library import configure, usable
from metaopt_core.kernels.operations import (
    Normal,
    SquaredErrorLoops,
    convolve,
    convolve_input_gradient,
    convolve_weight_gradient,
    norm_relu,
    norm_relu_gradient,
    norm_relu_second,
)

__all__ = [
    "Normal",
    "SquaredErrorLoops",
    "configure",
    "convolve",
    "convolve_input_gradient",
    "convolve_weight_gradient",
    "norm_relu",
    "norm_relu_gradient",
    "norm_relu_second",
    "usable",
]
