"""The real Omniglot pictures, read once a session."""

from pathlib import Path

import pytest

from metaopt_core.distributions.omniglot.archives import Pictures, read


@pytest.fixture(scope="session")
def pictures(omniglot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return read(str(omniglot_folder), tmp_path_factory.mktemp("downloads"))
