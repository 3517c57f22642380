"""The identity of a stage's output: what its result depends on, and a hash of it.

Four parts: the stage's values of the spec, the identities of its upstream outputs, the code that computes (`code`), and the major
versions of the libraries that compute, or that the user's code imports. What can't change the result (device, schedule, how often
to checkpoint, where data are) is in none of them. docs/architecture.md, "Identity", has the reasons.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from metaopt_core.errors import UserError
from metaopt_core.pipeline import code
from metaopt_core.pipeline.stages import STAGES, Stage
from metaopt_core.spec import user_source
from metaopt_core.spec.pipeline import PipelineSpec

HANDED = "metaopt_core.spec.pipeline:PipelineSpec"
"""Passed to every stage, inside its execution."""


@dataclass(frozen=True)
class Identity:
    """What a stage's result depends on, part by part, so that a difference can be named.

    slice: the stage's values of the spec, flat: dotted key → JSON value. upstream: stage → fingerprint. code: file, relative to the
    folder that holds the package, or to that of the user's module → SHA-256 of what computes in it. libraries: library → major
    version.
    """

    stage: str
    slice: Mapping[str, Any]
    upstream: Mapping[str, str]
    code: Mapping[str, str]
    libraries: Mapping[str, str]

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of a SHA-256 over all parts."""
        parts = [self.stage, self.slice, self.upstream, self.code, self.libraries]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def identities(spec: PipelineSpec) -> dict[str, Identity]:
    """The identity of every stage of a pipeline, in the order in which they run.

    It reads the code and the data that the pipeline depends on, so call it once and pass the result on. Raises UserError if one
    of them can't be read.
    """
    found: dict[str, Identity] = {}
    for stage in STAGES.values():
        files, libraries = _code(stage, spec)
        found[stage.name] = Identity(
            stage=stage.name,
            # A null key is left out, so that a new one in a later version changes no identity.
            slice={key: value for key, value in stage.depends_on(spec).items() if value is not None},
            upstream={name: found[name].fingerprint for name in stage.upstream},
            code=files,
            libraries=libraries,
        )
    return found


def _code(stage: Stage, spec: PipelineSpec) -> tuple[dict[str, str], dict[str, str]]:
    """The code that a stage computes with, ours and the user's, and the libraries of both."""
    entries: set[str] = {stage.task, HANDED}
    files: dict[str, str] = {}
    libraries = {name: _major(name) for name in (*stage.libraries, *stage.brings(spec))}
    for path in stage.components(spec):
        if path.partition(".")[0] in code.PACKAGES:
            entries.add(path)
            continue
        source = user_source.source(path)
        files |= {name: code.digest_of(file) for name, file in source.files.items()}
        entries |= source.ours
        libraries |= {name: _major(name) for module in source.libraries if (name := _distribution(module))}
    return dict(_of_library(tuple(sorted(entries)), stage.follows, code.ROOT)) | files, libraries


def _major(library: str) -> str:
    """Its major version; of one before 1.0, the minor version, too. Raises UserError if it is not installed."""
    try:
        major, _, rest = importlib.metadata.version(library).partition(".")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"{library}: not installed, and a component of the pipeline declares that it needs it: install it"
        ) from None
    return f"0.{rest.partition('.')[0]}" if major == "0" else major


@cache
def _distribution(module: str) -> str | None:
    """The library that a top-level module is installed by; none if it is not installed."""
    if module in sys.modules or importlib.util.find_spec(module) is not None:
        try:
            return importlib.metadata.metadata(module)["Name"].lower()
        except importlib.metadata.PackageNotFoundError:  # another name, as PIL, which Pillow installs
            return next((name.lower() for name in importlib.metadata.packages_distributions().get(module, ())), None)
    return None


_of_library = cache(code.digests)
