"""The real Omniglot pictures, read once a session."""

from pathlib import Path

import pytest

from metaopt_core.distributions import omniglot_archives
from metaopt_core.distributions.omniglot.archives import Pictures


@pytest.fixture(scope="session")
def pictures(omniglot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return omniglot_archives.read(str(omniglot_folder), tmp_path_factory.mktemp("downloads"))
