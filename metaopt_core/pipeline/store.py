"""Stage outputs on disk: `outputs/STAGE/FINGERPRINT/`, published whole or not at all.

An output is filled in a temporary folder beside its place and published by one rename, its manifest written last. An output
without a valid manifest, or with a file that is missing or not what the manifest says, does not exist.
"""

import contextlib
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

from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.identity import Identity

MANIFEST = "manifest.json"
_KEYS = {"fingerprint", "files", "made_from", "started", "seconds", "extra"}
TIMES = "times.parquet"  # when the points of a history were made


@dataclass(frozen=True)
class StageOutput:
    """A small reference to a published output. It crosses flow boundaries; tensors and tables don't.

    content: a digest of the output's files but figures and times, which no result depends on; equal bytes give equal content.
    started: when it was begun, in seconds since 1970.
    extra: what the stage wanted remembered beside its files (an MLflow run, counts), JSON values only.
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

        With `upstream`, an output that was made from other bytes than those that lie upstream now is not valid either.
        """
        manifest = self._manifest(identity)
        if isinstance(manifest, str):
            return manifest
        folder = self.folder(identity)
        for name, recorded in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                return f"missing file {_shown(path)}"
            if path.stat().st_size != recorded["size"] or _sha256(path) != recorded["sha256"]:
                return f"damaged file {_shown(path)}"
        for stage, output in (upstream or {}).items():
            if manifest["made_from"].get(stage) != output.content:
                return f"changed output of {stage}"
        return _reference(identity, folder, manifest)

    def made(self, identity: Identity) -> StageOutput:
        """The output that was just published."""
        output = self.get(identity)
        if isinstance(output, str):
            raise RuntimeError(f"{identity.stage} {identity.fingerprint} was published, and then: {output}")
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
        reasons += [f"changed code {name}" for name in _differing(before.code, identity.code)]
        reasons += [
            f"{name} {before.libraries.get(name)} → {identity.libraries.get(name)}"
            for name in _differing(before.libraries, identity.libraries)
        ]
        if not reasons:
            reasons += [f"upstream {name} differs" for name in _differing(before.upstream, identity.upstream)]
        return reasons

    def remember(self, pipeline: str, identity: Identity) -> None:
        """Note that this identity is now what the pipeline's stage has, for `why` to compare with."""
        pointer = self._pointer(pipeline, identity.stage)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(pointer, json.dumps(asdict(identity), indent=1))

    @contextlib.contextmanager
    def locked(self, identity: Identity, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """One process at a time makes one output; `on_wait` is called where another one is at it."""
        self.home.make()
        self.home.locks.mkdir(exist_ok=True)
        lock = FileLock(self.home.locks / f"{identity.stage}-{identity.fingerprint}.lock")
        try:
            lock.acquire(blocking=False)
        except TimeoutError:
            on_wait()
            lock.acquire()
        with lock:
            lock.release()  # the context manager has taken it once more
            yield

    @contextlib.contextmanager
    def publish(self, identity: Identity, upstream: Mapping[str, StageOutput]) -> Iterator[tuple[Path, dict[str, Any]]]:
        """A temporary folder to fill, and a dictionary for `extra`. Leaving the block without an error publishes both."""
        final = self.folder(identity)
        self.home.make()
        final.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in final.parent.glob(f".{identity.fingerprint}.*"):  # by a killed process: the caller holds the lock
            shutil.rmtree(abandoned, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{identity.fingerprint}.", dir=final.parent))
        extra: dict[str, Any] = {}
        started = time.time()
        try:
            yield draft, extra
            for path in draft.rglob("*"):
                _to_disk(path)
            files = {
                path.relative_to(draft).as_posix(): {"size": path.stat().st_size, "sha256": _sha256(path)}
                for path in sorted(draft.rglob("*"))
                if path.is_file()
            }
            manifest = {
                "fingerprint": identity.fingerprint,
                **asdict(identity),
                "made_from": {stage: output.content for stage, output in upstream.items()},
                "files": files,
                "started": started,
                "seconds": time.time() - started,
                "extra": extra,
            }
            write_atomically(draft / MANIFEST, json.dumps(manifest, indent=1))
            self.discard(identity)
            draft.rename(final)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def discard(self, identity: Identity) -> None:
        """Remove an output, whether valid or not. The rename comes first, so that a half-removed output is never seen."""
        folder = self.folder(identity)
        if folder.exists():
            doomed = Path(tempfile.mkdtemp(prefix=f".{identity.fingerprint}.", dir=folder.parent))
            folder.rename(doomed / "old")
            shutil.rmtree(doomed)

    def _manifest(self, identity: Identity) -> dict[str, Any] | str:
        path = self.folder(identity) / MANIFEST
        if not self.folder(identity).is_dir():
            return "no output yet"
        try:
            manifest: Any = json.loads(path.read_text())
        except FileNotFoundError:
            return f"missing file {_shown(path)}"
        except (OSError, ValueError):
            return f"damaged file {_shown(path)}"
        complete = isinstance(manifest, dict) and manifest.keys() >= _KEYS
        if not complete or manifest["fingerprint"] != identity.fingerprint:
            return f"damaged file {_shown(path)}"
        return dict(manifest)

    def _pointer(self, pipeline: str, stage: str) -> Path:
        return self.home.outputs / stage / f"last-{pipeline}.json"


def _reference(identity: Identity, folder: Path, manifest: Mapping[str, Any]) -> StageOutput:
    data = {name: file for name, file in manifest["files"].items() if not name.endswith((".png", TIMES))}
    content = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
    started, seconds = manifest["started"], manifest["seconds"]
    return StageOutput(identity.stage, identity.fingerprint, str(folder), content, started, seconds, manifest["extra"])


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    """Have the operating system write a file or a folder's entries now."""
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
