"""From a spec to a distribution on disk, and from there back into memory."""

import json
from pathlib import Path

from metaopt_core.distributions import omniglot, omniglot_archives, sinusoid
from metaopt_core.distributions.batch import TaskDistribution
from metaopt_core.spec.models import PipelineSpec, SinusoidSpec


def materialize(spec: PipelineSpec, downloads: Path, folder: Path) -> None:
    """Write the pipeline's task distribution into a folder; archives that have to be downloaded are kept in `downloads`."""
    if isinstance(spec.generate, SinusoidSpec):
        sinusoid.materialize(spec.generate, spec.seed, folder)
    else:
        pictures = omniglot_archives.read(spec.generate.folder, downloads)
        omniglot.materialize(spec.generate, spec.seed, pictures, folder)


def load(folder: Path) -> TaskDistribution:
    """The distribution that `materialize` wrote."""
    name = json.loads((folder / "distribution.json").read_text())["distribution"]
    return sinusoid.Sinusoid.load(folder) if name == "sinusoid" else omniglot.Omniglot.load(folder)
