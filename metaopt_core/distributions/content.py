"""The identity of data by content: the same files have one digest, wherever they are and however they are packed.

Reading them all takes seconds, so the digest is cached in the user's cache folder, keyed by path, size, times and inode of the
files. The cache changes no result, and can be deleted at any time.
"""

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

_SETTLED_SECONDS = 2.0  # the times of younger files may not reveal a further change


def digest(files: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 over names and contents, in the order of the names."""
    lines = sorted(f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in files)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def remembered(of: str, files: Mapping[str, os.stat_result], find: Callable[[], str]) -> str:
    """The digest of files from the cache, or else from `find`, which reads them.

    of: what the digest is of. files: absolute path → status.
    """
    lines = [of, *(f"{path} {_looks(status)}" for path, status in sorted(files.items()))]
    key = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
    if known := _recalled(key):
        return known
    found = find()
    if all(time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_SECONDS for status in files.values()):
        with contextlib.suppress(OSError):  # then it is computed again the next time
            _remember(key, found)
    return found


def _looks(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _recalled(key: str) -> str | None:
    try:
        text = (_folder() / key).read_text()
    except (OSError, ValueError):
        return None
    return text if len(text) == len(key) and text.isalnum() else None


def _remember(key: str, found: str) -> None:
    folder = _folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
        file.write(found)
    Path(file.name).replace(folder / key)


@cache
def _folder() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("metaopt") / "content"
