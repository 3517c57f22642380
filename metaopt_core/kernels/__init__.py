"""Compiled loops for which PyTorch has no single operation: optional, and only behind this interface.

    configure(folder)   where the compiled library is kept; by default in the user's cache folder
    usable(*tensors)    whether the loops are available for these tensors

and, for tensors that are usable, the operations of `operations` (convolution, batch norm with ReLU, the squared error of a small
fully connected network). They have no derivatives of their own; callers build derivatives from them. Each checks the
type, shape and layout of every tensor before C reads it, and raises ValueError.

PyTorch is the reference: if `usable` says no (on a GPU, for other dtypes, while torch.compile traces, without a C compiler), every
caller does the same with PyTorch's operations, and the tests compare the two. If the library can't be compiled, one line says so.
"""

from metaopt_core.kernels.compiled import configure, usable
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
