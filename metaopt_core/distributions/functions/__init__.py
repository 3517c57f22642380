"""Regression of functions of one number: sinusoids, or a mixture of lines, quadratics and sinusoids."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from metaopt_core.distributions.contract import Distribution
from metaopt_core.distributions.functions.settings import FunctionsSettings, MixtureSettings
from metaopt_core.spec.distribution import TaskShape

if TYPE_CHECKING:
    from metaopt_core.distributions.batch import TaskDistribution


class FunctionsSpec(FunctionsSettings, Distribution):
    """Base of distributions of functions of one number."""

    def shift_keys(self, changes: Mapping[str, Any]) -> frozenset[str]:
        return frozenset({"distribution", *_kind(changes, self).model_fields}) - {"support_points", "held_out", "seed"}

    def shifted(self, changes: Mapping[str, Any]) -> "FunctionsSpec":
        """The shifted distribution; settings that the other kind doesn't have are left out."""
        kind = _kind(changes, self)
        kept, changed = ({key: value for key, value in pairs if key in kind.model_fields} for pairs in (self, changes.items()))
        return kind.model_validate(kept | changed)

    def materialize(self, seed: int, downloads: Path, folder: Path) -> TaskShape:  # noqa: ARG002
        from metaopt_core.distributions.functions import drawing

        drawing.materialize(self, seed, folder)
        return self.shape

    def load(self, seed: int, folder: Path) -> "TaskDistribution":
        from metaopt_core.distributions.functions import drawing

        return drawing.Functions.load(self, seed, folder)


class SinusoidSpec(FunctionsSpec):
    """Sinusoid regression, y = amplitude · sin(x − phase) (Finn, Abbeel, Levine 2017, section 5.1)."""

    noun = "sinusoids"

    distribution: Literal["sinusoid"] = Field(description="Which p(T): where tasks come from.")


class MixtureSpec(MixtureSettings, FunctionsSpec):
    """Regression of lines, quadratics and sinusoids, each task of one family (Finn, Xu, Levine 2018; Vuorio et al. 2019)."""

    noun = "mixtures of functions"

    distribution: Literal["mixture"] = Field(description="Which p(T): where tasks come from.")


def _kind(changes: Mapping[str, Any], spec: FunctionsSpec) -> type[FunctionsSpec]:
    """The model of a shifted variant's distribution."""
    return MixtureSpec if (changes.get("distribution") or spec.distribution) == "mixture" else SinusoidSpec
