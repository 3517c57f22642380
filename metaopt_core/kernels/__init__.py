"""The loops of kernels.c: compiled at their first use by the machine's C compiler for its own processor, and kept.

They work on CPU tensors in float32 and float64. Where there is no compiler, one line says so, and callers do the same with
PyTorch's own operations, more slowly.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pooch
import torch
from torch import Tensor

from metaopt_core.pipeline import home

SOURCE = Path(__file__).with_name("kernels.c")

_TYPES = {torch.float32: "float", torch.float64: "double"}
_OPTIONS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-shared", "-fPIC")


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels are there and can work on such tensors."""
    first = tensors[0]
    return (
        first.device.type == "cpu"
        and first.dtype in _TYPES
        and all(tensor.dtype == first.dtype for tensor in tensors)
        and not torch.compiler.is_compiling()
        and _library(first.dtype) is not None
    )


Argument = Tensor | int | float | None


def call(name: str, *arguments: Argument) -> None:
    """Call a kernel: a tensor becomes a pointer to its numbers, none a null pointer, a number a `long long` or a `double`.

    Tensors are contiguous, but for a task dimension of stride 0, which the kernel must be told of.
    """
    function = getattr(_library(_dtype_of(arguments)), name)
    values = [
        ctypes.c_void_p(argument.data_ptr()) if isinstance(argument, Tensor) else _C_TYPES[type(argument)](argument)
        for argument in arguments
    ]
    if torch.autograd.profiler._is_profiler_enabled:
        with torch.profiler.record_function(name):
            function(*values)
    else:
        function(*values)


_C_TYPES: dict[type, Any] = {type(None): ctypes.c_void_p, int: ctypes.c_longlong, bool: ctypes.c_longlong, float: ctypes.c_double}


def _dtype_of(arguments: tuple[Argument, ...]) -> torch.dtype:
    """That of the first tensor of real numbers."""
    for argument in arguments:
        if isinstance(argument, Tensor) and argument.dtype in _TYPES:
            return argument.dtype
    raise ValueError("none of the arguments holds real numbers that the kernels are compiled for")


@cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    try:
        if compiler is None:
            raise FileNotFoundError("no C compiler (cc, gcc or clang) is on the PATH, and CC names none")
        command = [*compiler.split(), *_OPTIONS, f"-DREAL={_TYPES[dtype]}"]
        made = _folder() / f"kernels-{_identity(command)}.so"
        if not made.exists():
            made.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=made.parent) as folder:  # whole or not at all, whoever else compiles it now
                unfinished = Path(folder) / "made.so"
                subprocess.run([*command, "-o", unfinished, SOURCE, "-lm"], check=True, capture_output=True, text=True)
                unfinished.replace(made)
        return ctypes.CDLL(str(made))
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        lines = said.strip().splitlines()
        reason = next((line for line in lines if "error" in line), lines[0])
        sys.stderr.write(f"computing without compiled kernels, more slowly: {reason}\n")
        return None


def _folder() -> Path:
    named = os.environ.get(home.VARIABLE)
    return home.Home(Path(named).expanduser()).compiled if named else Path(pooch.os_cache("metaopt"))


def _identity(command: list[str]) -> str:
    """What the compiled file depends on: source, command, compiler and processor."""
    version = subprocess.run([command[0], "--version"], check=True, capture_output=True, text=True).stdout
    cpuinfo = Path("/proc/cpuinfo")
    flags = [line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")][:1] if cpuinfo.exists() else []
    parts = [SOURCE.read_text(), *command, version, platform.machine(), platform.processor(), *flags]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
