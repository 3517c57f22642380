"""One execution of a pipeline: what is carried out, in which home, and the identity of every stage.

It is made once, where a run begins, and handed down, because identities read the code and the data that they depend on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.identity import Identity, identities
from metaopt_core.pipeline.stages import PUBLISHING
from metaopt_core.pipeline.store import Store
from metaopt_core.spec.pipeline import PipelineSpec


@dataclass(frozen=True)
class Execution:
    """identities: by stage. traces: a folder for profiles of training, where they are asked for."""

    home: Home
    spec: PipelineSpec
    identities: Mapping[str, Identity]
    traces: Path | None = None

    @classmethod
    def of(cls, home: Home, spec: PipelineSpec, traces: Path | None = None) -> Self:
        """Raises UserError where the data or the user's code can't be read."""
        return cls(home, spec, identities(spec), traces)

    @property
    def store(self) -> Store:
        return Store(self.home)

    @property
    def fingerprint(self) -> str:
        """That of the stage which publishes the results, and so depends on all that they depend on."""
        return self.identities[PUBLISHING].fingerprint

    @property
    def key(self) -> str:
        """What it is recorded under in the home."""
        return f"{self.spec.name}-{self.fingerprint}"
