"""The description of a run: tags, the whole spec as parameters, and the spec as its own pipelines file."""

import contextlib
import getpass
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from metaopt_core.pipeline.code import ROOT
from metaopt_core.pipeline.stages import flatten
from metaopt_core.spec.as_yaml import spec_yaml
from metaopt_core.spec.pipeline import PipelineSpec

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

_DESCRIBED = "metaopt.described"  # set when parameters and spec.yaml are complete
_PARAMS_AT_ONCE = 100  # MLflow's limit for a batch
_LIBRARIES = ("metaopt", "torch", "numpy", "mlflow", "prefect")


def tags_of(spec: PipelineSpec, fingerprints: Mapping[str, str]) -> dict[str, str]:
    tags = {
        "mlflow.user": _user(),
        "mlflow.source.name": "metaopt",
        "mlflow.source.type": "LOCAL",
        "metaopt.pipeline": spec.name,
        "metaopt.seed": str(spec.seed),
        "metaopt.python": platform.python_version(),
    }
    tags |= {f"metaopt.fingerprint.{stage}": fingerprint for stage, fingerprint in fingerprints.items()}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            tags[f"metaopt.version.{library}"] = importlib.metadata.version(library)
    if spec.description:
        tags["mlflow.note.content"] = spec.description
    if commit := _git("rev-parse", "HEAD"):
        tags["mlflow.source.git.commit"] = commit
        tags["metaopt.git.dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    return tags


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id may have no name
        return "unknown"


def _git(*arguments: str) -> str:
    """What git says about the folder that the code runs from; empty without a repository or without git."""
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def parameters(spec: PipelineSpec) -> dict[str, str]:
    """The spec as MLflow parameters: dotted key → JSON, or a text as it is.

    Without `log.register_as`, which a later run with `--register` may set: parameters never change, so a tag says it (`publish`).
    """
    values: dict[str, Any] = {}
    for key, value in spec.model_dump(mode="json").items():
        values |= flatten(key, value) if isinstance(value, Mapping) else {key: value}
    del values["log.register_as"]
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def describe(client: "MlflowClient", run: "MlflowRun", spec: PipelineSpec) -> None:
    """Write parameters and spec once, even if a process died halfway. A changed device or schedule is still the same execution."""
    from mlflow.entities import Param

    if _DESCRIBED in run.data.tags:
        return
    missing = [Param(key, value) for key, value in parameters(spec).items() if key not in run.data.params]
    for start in range(0, len(missing), _PARAMS_AT_ONCE):
        client.log_batch(run.info.run_id, params=missing[start : start + _PARAMS_AT_ONCE])
    client.log_text(run.info.run_id, spec_yaml(spec), "spec.yaml")
    client.set_tag(run.info.run_id, _DESCRIBED, "true")
