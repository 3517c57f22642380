"""Pictures to draw tasks from: made-up ones, which every machine has, and the published ones where they are."""

from pathlib import Path

import pytest

from metaopt_core.distributions.omniglot.archives import Pictures, read
from tests.small import noise_pictures


@pytest.fixture(scope="session")
def pictures() -> Pictures:
    return noise_pictures()


@pytest.fixture(scope="session")
def published(omniglot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """The real Omniglot, read once a session."""
    return read(str(omniglot_folder), tmp_path_factory.mktemp("downloads"))
