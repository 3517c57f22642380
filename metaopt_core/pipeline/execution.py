"""One execution of a pipeline: what is carried out, in which home, and the identity of every stage.

It is made once, when a run begins, and passed down, because computing identities reads the code and the data.
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
    """identities: by stage. traces: a folder for profiles of training, if they are wanted."""

    home: Home
    spec: PipelineSpec
    identities: Mapping[str, Identity]
    traces: Path | None = None

    @classmethod
    def of(cls, home: Home, spec: PipelineSpec, traces: Path | None = None) -> Self:
        """Raises UserError if the data or the user's code can't be read."""
        return cls(home, spec, identities(spec), traces)

    @property
    def store(self) -> Store:
        return Store(self.home)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the last stage, which depends on everything that the results depend on."""
        return self.identities[PUBLISHING].fingerprint

    @property
    def key(self) -> str:
        """Its name for records in the home."""
        return f"{self.spec.name}-{self.fingerprint}"
