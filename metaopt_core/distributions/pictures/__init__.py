"""Classification of pictures: each folder of them is a class, and a task is to tell a few classes apart."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from metaopt_core.distributions.contract import Distribution
from metaopt_core.distributions.pictures.settings import PicturesSettings
from metaopt_core.distributions.splits import Listed
from metaopt_core.spec.distribution import TaskShape

if TYPE_CHECKING:
    from metaopt_core.distributions.batch import TaskDistribution


class PicturesSpec(PicturesSettings, Distribution):
    """Pictures in folders, in an archive, or named by a CSV file; split by class or by group of classes."""

    distribution: Literal["pictures"] = Field(description="Which p(T): where tasks come from.")

    def data(self) -> str:
        from metaopt_core.distributions.pictures import sources

        found = sources.identity(self)
        return f"{found} {self.split.digest()}" if isinstance(self.split, Listed) else found

    def materialize(self, seed: int, downloads: Path, folder: Path) -> TaskShape:  # noqa: ARG002
        from metaopt_core.distributions.pictures import making

        making.materialize(self, seed, folder)
        return self.shape

    def load(self, seed: int, folder: Path) -> "TaskDistribution":
        from metaopt_core.distributions.pictures import drawing

        return drawing.Pictures.load(self, seed, folder)
