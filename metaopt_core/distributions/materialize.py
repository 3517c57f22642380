"""From a spec to a distribution on disk, and from there back into memory."""

import json
from pathlib import Path

from metaopt_core.distributions import functions, omniglot, omniglot_archives
from metaopt_core.distributions.batch import TaskDistribution
from metaopt_core.spec.models import OmniglotSpec, PipelineSpec


def materialize(spec: PipelineSpec, downloads: Path, folder: Path) -> None:
    """Write the pipeline's task distribution into a folder; archives that have to be downloaded are kept in `downloads`."""
    if isinstance(spec.generate, OmniglotSpec):
        pictures = omniglot_archives.read(spec.generate.folder, downloads)
        omniglot.materialize(spec.generate, spec.seed, pictures, folder)
    else:
        functions.materialize(spec.generate, spec.seed, folder)


def load(folder: Path) -> TaskDistribution:
    """The distribution that `materialize` wrote."""
    name = json.loads((folder / "distribution.json").read_text())["distribution"]
    return omniglot.Omniglot.load(folder) if name == "omniglot" else functions.Functions.load(folder)
