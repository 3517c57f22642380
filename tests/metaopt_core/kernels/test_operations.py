"""Nothing reaches C that it would read wrongly: each tensor's shape, type and layout is checked, and no loop leaves its tensors.

That the loops compute what they should is tested against PyTorch in `networks` and `meta`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metaopt_core import kernels

WIDTHS = (2, 8, 1)
COUNT = 3 * 8 + 9


def loops(**changed: Any) -> kernels.SquaredErrorLoops:
    given: dict[str, Any] = {"x": torch.rand(3, 5, 2), "y": torch.rand(3, 5, 1), "weights": None}
    return kernels.SquaredErrorLoops(WIDTHS, **(given | changed), uniform=0.2)


def exact(query: kernels.SquaredErrorLoops) -> None:
    loops().exact(query, torch.rand(3, COUNT), 0.1, 2)


X, W, G = torch.rand(2, 4, 7, 6, 3), torch.rand(2, 3, 3, 3, 5), torch.rand(2, 4, 4, 3, 5)
C = torch.rand(2, 5)
NORMAL = kernels.norm_relu(G, C, C, 1e-5)[1]

WRONG: dict[str, Callable[[], Any]] = {
    "inputs of another number of features": lambda: loops(x=torch.rand(3, 5, 3)),
    "inputs without examples": lambda: loops(x=torch.rand(3, 2)),
    "two targets for one output": lambda: loops(y=torch.rand(3, 5, 2)),
    "targets without outputs": lambda: loops(y=torch.rand(3, 5)),
    "targets in float64": lambda: loops(y=torch.rand(3, 5, 1).double()),
    "weights of other examples": lambda: loops(weights=torch.rand(3, 4)),
    "weights in float64": lambda: loops(weights=torch.rand(3, 5).double()),
    "parameters in float64": lambda: loops().gradient(torch.rand(3, COUNT).double(), loops().work()),
    "parameters of another network": lambda: loops().gradient(torch.rand(3, COUNT + 1), loops().work()),
    "parameters of other tasks": lambda: loops().gradient(torch.rand(2, COUNT), loops().work()),
    "too little memory": lambda: loops().gradient(torch.rand(3, COUNT), loops().work()[1:]),
    "a direction of another shape": lambda: loops().product(torch.rand(3, COUNT), torch.rand(1, COUNT), loops().work()),
    "queries of other tasks": lambda: exact(loops(x=torch.rand(2, 5, 2), y=torch.rand(2, 5, 1))),
    "queries in float64": lambda: exact(loops(x=torch.rand(3, 5, 2).double(), y=torch.rand(3, 5, 1).double())),
    "pictures without channels": lambda: kernels.convolve(X[..., 0], W),
    "pictures of other channels": lambda: kernels.convolve(X[..., :2], W),
    "filters of other tasks": lambda: kernels.convolve(X, W[:1]),
    "filters in float64": lambda: kernels.convolve(X, W.double()),
    "a gradient of other pictures": lambda: kernels.convolve_input_gradient(G[:, :3], W, X.shape),
    "a gradient in float64": lambda: kernels.convolve_weight_gradient(X, G.double()),
    "a gradient of other positions": lambda: kernels.convolve_weight_gradient(X, G[:, :, :3]),
    "a scale of other channels": lambda: kernels.norm_relu(G, C[:, :4], C, 1e-5),
    "a shift in float64": lambda: kernels.norm_relu(G, C, C.double(), 1e-5),
    "what is normalized without rows": lambda: kernels.norm_relu(C, C, C, 1e-5),
    "an upper gradient of another shape": lambda: kernels.norm_relu_gradient(G[:, :3], NORMAL),
    "a mean of other tasks": lambda: kernels.norm_relu_gradient(G, NORMAL._replace(mean=C[:1])),
    "column-major pictures": lambda: kernels.norm_relu_gradient(
        G, NORMAL._replace(x=G.transpose(2, 3).contiguous().transpose(2, 3))
    ),
    "a direction in float64": lambda: kernels.norm_relu_second(G, C.double(), C, G, NORMAL),
    "whole numbers": lambda: kernels.convolve(X.long(), W.long()),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_tensor_that_c_would_read_wrongly_is_refused(what: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=r"expected|check kernels.usable"):
        WRONG[what]()


def column_major(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, 1).contiguous().transpose(0, 1)


def test_how_tensors_are_stored_changes_nothing() -> None:
    random = torch.Generator().manual_seed(0)
    x, y, weights = (torch.rand(*shape, generator=random) for shape in ((3, 5, 2), (3, 5, 1), (3, 5)))
    theta, upper = (torch.rand(3, COUNT, generator=random) for _ in range(2))

    def derivatives(stored: Callable[[Tensor], Tensor]) -> list[Tensor]:
        one = loops(x=stored(x), y=stored(y), weights=stored(weights))
        work = one.work()
        losses, gradient = one.gradient(stored(theta), work)
        product = one.product(stored(theta), stored(upper), work)
        convolved = kernels.convolve(stored(X), stored(W))
        return [losses, gradient, product, convolved, kernels.norm_relu(stored(G), stored(C), stored(C), 1e-5)[0]]

    for found, expected in zip(derivatives(column_major), derivatives(lambda tensor: tensor), strict=True):
        assert torch.equal(found, expected)


def test_a_task_of_very_many_examples_needs_no_stack() -> None:
    """Pointers to 2 million examples are more than a thread's stack."""
    many = 2_000_000
    one = kernels.SquaredErrorLoops((1, 1), torch.ones(1, many, 1).double(), torch.zeros(1, many, 1).double(), None, 1 / many)
    theta, work = torch.tensor([[2.0, 0.0]]).double(), one.work()
    _, gradient = one.gradient(theta, work)
    assert gradient.tolist() == [pytest.approx([4.0, 4.0], rel=1e-3)]
    assert one.product(theta, torch.tensor([[1.0, 0.0]]).double(), work).tolist() == [pytest.approx([2.0, 2.0], rel=1e-3)]


@pytest.mark.slow
def test_no_loop_reads_or_writes_beside_its_tensors(tmp_path: Path) -> None:
    """Under AddressSanitizer, which the compiler has to bring."""
    compiler = shutil.which("gcc")
    runtime = compiler and subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not runtime or not Path(runtime).is_absolute():
        pytest.skip("needs gcc with AddressSanitizer")
    wrapper = tmp_path / "cc"
    wrapper.write_text(f'#!/bin/sh\nexec {compiler} "$@" -O1 -g1 -fsanitize=address\n')  # -O3 takes a minute
    wrapper.chmod(0o700)
    environment = os.environ | {
        "CC": str(wrapper),
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",
        "OMP_NUM_THREADS": "1",
    }
    script = Path(__file__).with_name("exercise.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path / "compiled"], env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.stdout == "exercised\n", done.stderr[-3000:]
