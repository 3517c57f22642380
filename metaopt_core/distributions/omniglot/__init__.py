"""Omniglot (Lake et al. 2015): classification of handwritten characters, possibly of unseen alphabets."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from metaopt_core.distributions.contract import Distribution
from metaopt_core.distributions.omniglot.settings import OmniglotSettings
from metaopt_core.spec.distribution import TaskShape

if TYPE_CHECKING:
    from metaopt_core.distributions.batch import TaskDistribution


class OmniglotSpec(OmniglotSettings, Distribution):
    """Omniglot (Lake et al. 2015), split by character or by alphabet; each rotation of a character is its own class."""

    distribution: Literal["omniglot"] = Field(description="Which p(T): where tasks come from.")

    def data(self) -> str:
        from metaopt_core.distributions.omniglot import archives

        return archives.identity(self.folder)

    def located(self, environment: Mapping[str, str]) -> Self:
        from metaopt_core.distributions.omniglot import archives

        named = environment.get(archives.VARIABLE)
        if self.folder is not None or not named:
            return self
        return self.model_copy(update={"folder": str(archives.folder_named(named, archives.VARIABLE).absolute())})

    def materialize(self, seed: int, downloads: Path, folder: Path) -> TaskShape:
        from metaopt_core.distributions.omniglot import archives, drawing

        drawing.materialize(self, seed, archives.read(self.folder, downloads), folder)
        return self.shape

    def load(self, seed: int, folder: Path) -> "TaskDistribution":
        from metaopt_core.distributions.omniglot import drawing

        return drawing.Omniglot.load(self, seed, folder)
