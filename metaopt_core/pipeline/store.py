"""Stage outputs on disk: `outputs/STAGE/FINGERPRINT/`, published whole or not at all.

An output is filled in a temporary folder beside its place and published by one rename, its manifest written last. An output
without a valid manifest, or with a file that is missing or doesn't match the manifest, does not exist.

An existing output can be made again (`--force`). A mark beside it records this and which output is to be replaced: the old output
stays valid until the new one is complete and replaces it, together with the mark. A process that is killed before leaves both.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from metaopt_core.pipeline import manifest
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.identity import Identity

TIMES = "times.parquet"  # when the points of a training history were recorded
CHANGED_CODE = "changed code "  # the prefix of reasons that are about a file


@dataclass(frozen=True)
class StageOutput:
    """A small reference to a published output. It crosses flow boundaries; tensors and tables don't.

    content: a digest of the output's files except figures and times, on which no result depends; equal bytes give equal content.
    started: in seconds since 1970.
    extra: what the stage recorded besides its files (an MLflow run, counts), JSON values only.
    """

    stage: str
    fingerprint: str
    folder: str
    content: str
    started: float
    seconds: float
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> float:
        """When it was made, in seconds since 1970."""
        return self.started + self.seconds

    def __truediv__(self, name: str) -> Path:
        return Path(self.folder) / name


class Store:
    """The outputs below one home."""

    def __init__(self, home: Home):
        self.home = home

    def folder(self, identity: Identity) -> Path:
        return self.home.outputs / identity.stage / identity.fingerprint

    def get(self, identity: Identity, upstream: Mapping[str, StageOutput] | None = None) -> StageOutput | str:
        """The valid output of a stage, or one line on why there is none.

        With `upstream`, an output that was made from other bytes than the current upstream outputs is not valid either.
        """
        folder, found = self.folder(identity), self._manifest(identity)
        if isinstance(found, str):
            return found
        values, _ = found
        if damaged := manifest.damage(folder, values["files"]):
            return damaged
        for stage, output in (upstream or {}).items():
            if values["made_from"].get(stage) != output.content:
                return f"changed output of {stage}"
        return _reference(identity, folder, values)

    def made(self, identity: Identity) -> StageOutput:
        """The output that was just published."""
        output = self.get(identity)
        if isinstance(output, str):
            raise RuntimeError(f"{identity.stage} {identity.fingerprint} was published, but is now invalid: {output}")
        return output

    def why(self, pipeline: str, identity: Identity) -> list[str]:
        """What changed since the pipeline's stage last had an output: keys with old and new value, upstream, sources, libraries."""
        pointer = self._pointer(pipeline, identity.stage)
        try:
            before = Identity(**json.loads(pointer.read_text()))
        except (OSError, ValueError, TypeError):
            return ["never run"]
        reasons = [
            f"{key}: {json.dumps(before.slice.get(key))} → {json.dumps(identity.slice.get(key))}"
            for key in _differing(before.slice, identity.slice)
        ]
        reasons += [f"{CHANGED_CODE}{name}" for name in _differing(before.code, identity.code)]
        reasons += [
            f"{name} {before.libraries.get(name)} → {identity.libraries.get(name)}"
            for name in _differing(before.libraries, identity.libraries)
        ]
        if not reasons:
            reasons += [f"upstream {name} differs" for name in _differing(before.upstream, identity.upstream)]
        return reasons

    def remember(self, pipeline: str, identity: Identity) -> None:
        """Record this identity as the latest of the pipeline's stage, for `why` to compare with."""
        pointer = self._pointer(pipeline, identity.stage)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(pointer, json.dumps(asdict(identity), indent=1))

    @contextlib.contextmanager
    def locked(self, identity: Identity, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Lock an output, so that only one process makes it; `on_wait` is called if another process holds the lock."""
        self.home.make()
        self.home.locks.mkdir(exist_ok=True)
        lock = FileLock(self.home.locks / f"{identity.stage}-{identity.fingerprint}.lock")
        try:
            lock.acquire(blocking=False)
        except TimeoutError:
            on_wait()
            lock.acquire()
        with lock:
            lock.release()  # the context manager has acquired it a second time
            yield

    @contextlib.contextmanager
    def publish(self, identity: Identity, upstream: Mapping[str, StageOutput]) -> Iterator[tuple[Path, dict[str, Any]]]:
        """A temporary folder to fill, and a dictionary for `extra`. Leaving the block without an error publishes both."""
        final = self.folder(identity)
        self.home.make()
        final.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in final.parent.glob(f".{identity.fingerprint}.*"):  # left by a killed process: the caller holds the lock
            shutil.rmtree(abandoned, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{identity.fingerprint}.", dir=final.parent))
        extra: dict[str, Any] = {}
        started = time.time()
        try:
            yield draft, extra
            for path in draft.rglob("*"):
                _to_disk(path)
            values = {
                "fingerprint": identity.fingerprint,
                **asdict(identity),
                "made_from": {stage: output.content for stage, output in upstream.items()},
                "files": manifest.entries(draft),
                "started": started,
                "seconds": time.time() - started,
                "extra": extra,
            }
            write_atomically(draft / manifest.NAME, manifest.text_of(values))
            _put_in_place(draft, final)
            self._mark(identity).unlink(missing_ok=True)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def ask_again(self, identity: Identity) -> None:
        """Mark an output to be made again from the beginning even if it is valid. Call it while holding the output's lock."""
        shutil.rmtree(self.home.checkpoints / identity.fingerprint, ignore_errors=True)
        if not isinstance(found := self._manifest(identity), str):
            write_atomically(self._mark(identity), found[1])

    def is_asked_again(self, identity: Identity) -> bool:
        """Whether the output is marked to be made again and has not been replaced yet."""
        try:
            replaced = self._mark(identity).read_text()
        except OSError:
            return False
        found = self._manifest(identity)
        return not isinstance(found, str) and found[1] == replaced

    def _mark(self, identity: Identity) -> Path:
        return self.home.outputs / identity.stage / f"{identity.fingerprint}.again"

    def _manifest(self, identity: Identity) -> tuple[dict[str, Any], str] | str:
        """The manifest and its digest, or one line on why there is none."""
        path = self.folder(identity) / manifest.NAME
        if not self.folder(identity).is_dir():
            return "no output yet"
        try:
            found = manifest.read(path)
        except FileNotFoundError:
            return f"missing file {_shown(path)}"
        except OSError:
            found = None
        return found if found and found[0]["fingerprint"] == identity.fingerprint else f"damaged file {_shown(path)}"

    def _pointer(self, pipeline: str, stage: str) -> Path:
        return self.home.outputs / stage / f"last-{pipeline}.json"


def _reference(identity: Identity, folder: Path, manifest: Mapping[str, Any]) -> StageOutput:
    data = {name: file for name, file in manifest["files"].items() if not name.endswith((".png", TIMES))}
    content = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
    started, seconds = manifest["started"], manifest["seconds"]
    return StageOutput(identity.stage, identity.fingerprint, str(folder), content, started, seconds, manifest["extra"])


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _put_in_place(draft: Path, final: Path) -> None:
    """Rename a folder to a place where another one may be, which then swaps places with it. If the file system can exchange names,
    there is a folder at that place at any time."""
    if final.exists() and not _exchanged(draft, final):
        final.rename(aside := Path(tempfile.mkdtemp(prefix=f"{draft.name}.", dir=draft.parent)) / "old")
        draft.rename(final)
        aside.parent.rename(draft)
    elif not final.exists():
        draft.rename(final)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step. Returns whether the system could."""
    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # Linux
    at_working_folder, exchange_flag = -100, 2
    return exchange is not None and exchange(at_working_folder, bytes(one), at_working_folder, bytes(other), exchange_flag) == 0


def _to_disk(path: Path) -> None:
    """Have the operating system write a file or a folder's entries to disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _shown(path: Path) -> str:
    return os.path.relpath(path)


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
