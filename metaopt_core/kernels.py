"""The loops of kernels.c: compiled at their first use by the machine's C compiler for its own processor, and kept.

They work on CPU tensors in float32 and float64. Where there is no compiler, one line says so, and callers do the same with PyTorch's
own operations, more slowly.
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

from metaopt_core import home

SOURCE = Path(__file__).with_suffix(".c")

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


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Call a kernel: contiguous tensors become pointers (none a null pointer), numbers `long long` or `double`."""
    first = next(argument for argument in arguments if isinstance(argument, Tensor))
    function = getattr(_library(first.dtype), name)
    function(*map(_as_c, arguments))


def _as_c(argument: Tensor | int | float | None) -> Any:
    if isinstance(argument, Tensor):
        assert argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())
    if argument is None:
        return ctypes.c_void_p(None)
    return ctypes.c_longlong(argument) if isinstance(argument, int) else ctypes.c_double(argument)


@cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        return _without("no C compiler (cc, gcc or clang) is on the PATH, and CC names none")
    command = [*compiler.split(), *_OPTIONS, f"-DREAL={_TYPES[dtype]}"]
    try:
        made = _folder() / f"kernels-{_identity(command)}.so"
        if not made.exists():
            made.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=made.parent) as folder:  # whole or not at all, whoever else compiles it now
                subprocess.run([*command, "-o", f"{folder}/made.so", str(SOURCE), "-lm"], check=True, capture_output=True, text=True)
                os.replace(f"{folder}/made.so", made)
        return ctypes.CDLL(str(made))
    except subprocess.CalledProcessError as error:
        return _without((error.stderr.strip().splitlines() or ["the compiler failed"])[0])
    except OSError as error:
        return _without(str(error))


def _without(reason: str) -> None:
    sys.stderr.write(f"computing without compiled kernels, more slowly: {reason}\n")


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
