"""Past executions of pipelines, read from their outputs' manifests in the store; no code runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from metaopt_core.errors import UserError
from metaopt_core.pipeline import manifest
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.stages import PUBLISHING

_SHOWN_OF_ID = 8
_NOT_SETTINGS = ("name", "data")  # and what is below them, as the digest of each of several files


@dataclass(frozen=True)
class Past:
    """One execution of a pipeline, up to and including its last stage.

    fingerprint: of that stage. finished: when, in seconds since 1970. seconds: spent in all stages. settings: dotted key → value
    of everything that results depend on. folders: stage → its output. content: digest of what each stage read. extra: what the
    last stage recorded, such as its MLflow run.
    """

    pipeline: str
    fingerprint: str
    finished: float
    seconds: float
    settings: Mapping[str, Any]
    folders: Mapping[str, Path]
    content: Mapping[str, str]
    extra: Mapping[str, Any]

    @property
    def id(self) -> str:
        return self.fingerprint[:_SHOWN_OF_ID]

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The results of `evaluate`. Raises OSError or ValueError."""
        found: dict[str, Any] = json.loads((self.folders["evaluate"] / "summary.json").read_text())
        return found


def past(home: Home) -> list[Past]:
    """Every execution whose outputs are complete, the newest first."""
    return sorted(_all(home), key=lambda one: -one.finished)


def _all(home: Home) -> Iterator[Past]:
    for path in home.outputs.glob(f"{PUBLISHING}/*/{manifest.NAME}"):
        try:
            last = _values(path)
            folders = {stage: home.outputs / stage / fingerprint for stage, fingerprint in last["upstream"].items()}
            before = {stage: _values(folder / manifest.NAME) for stage, folder in folders.items()}
            settings = {key: value for made in (*before.values(), last) for key, value in made["slice"].items()}
            yield Past(
                pipeline=last["slice"]["name"],
                fingerprint=last["fingerprint"],
                finished=last["started"] + last["seconds"],
                seconds=sum(made["seconds"] for made in (*before.values(), last)),
                settings={key: value for key, value in settings.items() if key.partition(".")[0] not in _NOT_SETTINGS},
                folders=folders | {PUBLISHING: path.parent},
                content=last["made_from"],
                extra=last["extra"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # damaged: none of it can be trusted
            continue


def _values(path: Path) -> dict[str, Any]:
    found = manifest.read(path)
    if found is None:
        raise ValueError(f"{path}: damaged")
    return found[0]


def named(executions: Sequence[Past], name: str) -> Past:
    """The execution with this id or beginning of an id, or else the newest one of the pipeline with this name. Raises UserError."""
    if found := [one for one in executions if one.pipeline == name]:
        return found[0]
    found = [one for one in executions if one.fingerprint.startswith(name)] if len(name) >= 4 else []
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{name}: {len(found)} runs have ids that begin like this: {', '.join(one.id for one in found)}")
    raise UserError(f"{name}: no run of this id, and no pipeline of this name has one; `metaopt runs` lists them")


def differing(executions: Sequence[Past]) -> list[str]:
    """The settings that differ between executions."""
    keys = {key for one in executions for key in one.settings}
    return sorted(key for key in keys if len({json.dumps(one.settings.get(key), sort_keys=True) for one in executions}) > 1)
