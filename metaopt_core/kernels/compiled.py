"""The library compiled from kernels.c, at its first use, by the machine's C compiler for its own processor; then cached.

Anybody who can write this file can run code in every process that loads it. So it is loaded only from a private folder of this
user, if it belongs to this user, nobody else can write it, and its SHA-256 is the one recorded when it was compiled. Otherwise
(truncated, or planted by somebody else) it is compiled again.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs
import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.c")

_TYPES = {torch.float32: "float", torch.float64: "double"}
_OPTIONS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-shared", "-fPIC")

_configured: Path | None = None


def configure(folder: Path | None) -> None:
    """Keep the compiled library in a folder, which becomes private (mode 0700); none means the user's cache folder."""
    global _configured
    _configured = folder
    _library.cache_clear()


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels are available for these tensors: on a CPU, all in float32 or all in float64."""
    first = tensors[0]
    return (
        first.is_cpu
        and first.dtype in _TYPES
        and all(tensor.dtype == first.dtype and tensor.is_cpu for tensor in tensors)
        and not torch.compiler.is_compiling()
        and _library(first.dtype) is not None
    )


Argument = Tensor | int | float | None

_C_TYPES: dict[type, Any] = {type(None): ctypes.c_void_p, int: ctypes.c_longlong, bool: ctypes.c_longlong, float: ctypes.c_double}


def call(name: str, dtype: torch.dtype, *arguments: Argument) -> None:
    """Call a function of kernels.c: a tensor becomes a pointer to its numbers, none a null pointer, a number a `long long` or a
    `double`.

    It reads and writes unchecked memory: `operations` checks every tensor first.
    """
    library = _library(dtype) if dtype in _TYPES else None
    if library is None:
        raise RuntimeError("the compiled kernels are not available here: check kernels.usable first")
    function = getattr(library, name)
    values = [
        ctypes.c_void_p(argument.data_ptr()) if isinstance(argument, Tensor) else _C_TYPES[type(argument)](argument)
        for argument in arguments
    ]
    if torch.autograd.profiler._is_profiler_enabled:
        with torch.profiler.record_function(name):
            function(*values)
    else:
        function(*values)


@cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The library for a dtype. If it can't be compiled, one line says so."""
    try:
        command = _command(dtype)
        folder = _private_folder()
        made = folder / f"kernels-{_identity(command)}.so"
        if not _trusted(made):
            _compile(command, made)
        return ctypes.CDLL(str(made))
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        lines = said.strip().splitlines() or [type(error).__name__]
        reason = next((line for line in lines if "error" in line), lines[0])
        sys.stderr.write(f"computing without compiled kernels, more slowly: {reason}\n")
        return None


def _command(dtype: torch.dtype) -> list[str]:
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        raise FileNotFoundError("no C compiler (cc, gcc or clang) is on the PATH, and CC names none")
    return [*compiler.split(), *_OPTIONS, f"-DREAL={_TYPES[dtype]}"]


def _identity(command: list[str]) -> str:
    """A digest of what the compiled file depends on: source, command, compiler and processor."""
    version = subprocess.run([command[0], "--version"], check=True, capture_output=True, text=True).stdout
    cpuinfo = Path("/proc/cpuinfo")
    flags = [line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")][:1] if cpuinfo.exists() else []
    parts = [SOURCE.read_text(), *command, version, platform.machine(), platform.processor(), *flags]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _private_folder() -> Path:
    """The folder of compiled files, made if missing: the configured one unless it is another user's, else one in the cache."""
    cache = platformdirs.user_cache_path("metaopt") / "compiled"
    if _configured is None:
        return _made_private(cache)
    try:
        return _made_private(_configured)
    except OSError:
        return _made_private(cache)


def _made_private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user, who could put anything there")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


def _digest(made: Path) -> Path:
    """The file with the digest that a compiled file had when it was made."""
    return made.with_suffix(".sha256")


def _trusted(made: Path) -> bool:
    """Whether a compiled file is this user's, nobody else can write it, and it is unchanged."""
    try:
        if not all(_ours(path) for path in (made, _digest(made))):
            return False
        return hashlib.sha256(made.read_bytes()).hexdigest() == _digest(made).read_text()
    except (OSError, ValueError):
        return False


def _ours(path: Path) -> bool:
    found = path.lstat()
    others_write = stat.S_IWGRP | stat.S_IWOTH
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & others_write


def _compile(command: list[str], made: Path) -> None:
    """Compile. Each of the two files appears whole or not at all, even if other processes compile it, too."""
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        unfinished, digest = Path(folder) / made.name, Path(folder) / _digest(made).name
        subprocess.run([*command, "-o", unfinished, SOURCE, "-lm"], check=True, capture_output=True, text=True)
        unfinished.chmod(0o700)
        digest.write_text(hashlib.sha256(unfinished.read_bytes()).hexdigest())
        digest.chmod(0o600)
        unfinished.replace(made)
        digest.replace(_digest(made))
