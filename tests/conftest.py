"""Every test session has a home and a Prefect home of its own, chosen before Prefect is imported, and tells nobody about it."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

# Generated inputs are the same ones in every run of the suite; `pytest --hypothesis-profile long` looks at many others.
settings.register_profile("quick", max_examples=100, derandomize=True, deadline=None)
settings.register_profile("long", max_examples=20_000, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
settings.load_profile("quick")

if TYPE_CHECKING:
    from metaopt_core.methods.contract import Setting

_home = tempfile.mkdtemp(prefix="metaopt-tests-")
os.environ["METAOPT_HOME"] = _home
os.environ["PREFECT_HOME"] = f"{_home}/prefect"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of several processes that wait for one another are slower than one
for _variable in ("PREFECT_API_URL", "PREFECT_PROFILE", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
    os.environ.pop(_variable, None)

# What runs here must not find the pictures by itself; processes of tests side by side come after this and read the second name.
_omniglot = os.environ.pop("METAOPT_OMNIGLOT", None) or os.environ.get("TESTS_OMNIGLOT")
if _omniglot:
    os.environ["TESTS_OMNIGLOT"] = _omniglot


@pytest.fixture(scope="session")
def omniglot_folder() -> Path:
    """The folder with the real Omniglot archives; a test that asks for it is skipped where there is none."""
    if _omniglot is None:
        pytest.skip("needs the real Omniglot archives: METAOPT_OMNIGLOT names their folder")
    return Path(_omniglot)


@pytest.fixture(scope="session")
def noise_setting(tmp_path_factory: pytest.TempPathFactory) -> "Setting":
    """A small classification pipeline with its made-up pictures in memory."""
    from tests.small import SMALL_CONV, setting_of

    return setting_of(SMALL_CONV, tmp_path_factory.mktemp("noise"))


@pytest.fixture(scope="session")
def noise_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with made-up archives in the form of Omniglot's."""
    from tests.small import noise_archives

    return noise_archives(tmp_path_factory.mktemp("archives"))


def pytest_unconfigure() -> None:
    import shutil

    shutil.rmtree(_home, ignore_errors=True)
