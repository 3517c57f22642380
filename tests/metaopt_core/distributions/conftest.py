"""The real Omniglot pictures, read once a session."""

import os
from pathlib import Path

import pytest

from metaopt_core.distributions import omniglot_archives
from metaopt_core.distributions.omniglot_archives import Pictures

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def omniglot_folder() -> Path:
    """The folder with the two archives: METAOPT_OMNIGLOT, else shared/data/omniglot beside the checkout."""
    folder = Path(os.environ.get(omniglot_archives.VARIABLE) or ROOT.parent / "shared" / "data" / "omniglot")
    if not all((folder / part.archive).is_file() for part in omniglot_archives.PARTS):
        names = " and ".join(part.archive for part in omniglot_archives.PARTS)
        pytest.skip(f"needs Omniglot: {names} are not in {folder}; name their folder in {omniglot_archives.VARIABLE}")
    return folder


@pytest.fixture(scope="session")
def pictures(omniglot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return omniglot_archives.read(str(omniglot_folder), tmp_path_factory.mktemp("downloads"))
