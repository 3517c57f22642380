"""A full disk, recognized in whatever error it leads to: of the file system, of SQLite, or of a server that can write no longer."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from metaopt_core.pipeline import home

_FULL = {errno.ENOSPC, errno.EDQUOT}
_WORDS = ("disk is full", "No space left on device", "Disk quota exceeded")  # SQLite's, and in messages that quote the system's
_LITTLE = 5 * 2**20  # bytes; an error of Prefect's server, which doesn't say its cause, is put down to less than that
_SCARCE = 100 * 2**20


def explanation(error: BaseException) -> str | None:
    """What to tell the user if an error came of a full disk, else none."""
    folder, temporary = _existing(Path(os.environ.get(home.VARIABLE, "."))), Path(tempfile.gettempdir())
    causes = list(_causes(error))
    full = next((cause for cause in causes if _is_full(cause)), None)
    if full is None:
        failed = any(type(cause).__name__ == "PrefectHTTPStatusError" and "Server error" in str(cause) for cause in causes)
        if not failed or _free(folder) > _LITTLE:
            return None
    scarce = [f"{_free(place) / 1e6:.0f} MB are left for {place}" for place in (folder, temporary) if _free(place) < _SCARCE]
    return (
        f"the disk is full: {' and '.join(scarce) or full}. Make room (a new {home.FOLDER} takes 20 MB) and run the same command "
        "again: it continues where it was."
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_full(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno in _FULL) or any(word in str(error) for word in _WORDS)


def _existing(folder: Path) -> Path:
    return next((path for path in (folder, *folder.parents) if path.exists()), Path())


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free
