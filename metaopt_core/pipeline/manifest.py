"""The manifest of an output: its files with their digests, and what it was made from.

It is JSON whose first line holds the SHA-256 of the rest, so a flipped byte is noticed anywhere: in a name, a number or a space.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "manifest.json"
_KEYS = {"fingerprint", "files", "made_from", "started", "seconds", "extra"}
_SETTLED_SECONDS = 1.0  # the times of a younger file may not reveal a further change

_known: dict[tuple[int, ...], str] = {}  # how a file looked when it was read → its SHA-256


def text_of(values: Mapping[str, Any]) -> str:
    """The text of a manifest."""
    body = json.dumps(values, indent=1)[1:]  # after the brace
    return _head(body.encode()).decode() + body


def read(path: Path) -> tuple[dict[str, Any], str] | None:
    """A manifest and its digest; none if it was damaged. Raises OSError if it can't be read."""
    data = path.read_bytes()
    body = data[len(_head(b"")) :]
    if data != _head(body) + body:
        return None
    values: dict[str, Any] = json.loads(data)
    return (values, values["sha256"]) if values.keys() >= _KEYS else None


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    """A manifest's entries for the files in a folder: path → size and SHA-256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)} for path in files}


def damage(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> str | None:
    """One line on the first file that is missing or doesn't match its entry; none if all match."""
    for name, recorded in files.items():
        path = folder / name
        if not path.is_file():
            return f"missing file {os.path.relpath(path)}"
        if path.stat().st_size != recorded["size"] or sha256(path) != recorded["sha256"]:
            return f"damaged file {os.path.relpath(path)}"
    return None


def sha256(path: Path) -> str:
    """SHA-256 of a file; read once in a process, unless its size, times or inode change."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        looks = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        if looks in _known:
            return _known[looks]
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time() - status.st_ctime > _SETTLED_SECONDS:
        _known[looks] = digest
    return digest


def _head(body: bytes) -> bytes:
    return f'{{"sha256": "{hashlib.sha256(body).hexdigest()}",'.encode()
