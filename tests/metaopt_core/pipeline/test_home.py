"""The folder that holds all state."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.stages import identities
from metaopt_core.pipeline.store import Store
from metaopt_core.tracking.connection import initialize
from tests.made_outputs import sinusoid_spec


def _mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    before = os.umask(0o022)
    yield Home(tmp_path / "around" / ".metaopt")
    os.umask(before)


def test_a_home_is_made_for_its_owner_alone_by_whatever_comes_first(home: Home) -> None:
    identity = identities(sinusoid_spec("home"))["generate"]
    with Store(home).publish(identity, {}):
        pass
    assert _mode(home.root) == 0o700
    another = Home(home.root.with_name("another"))
    initialize(another)
    assert _mode(another.root) == 0o700
    assert _mode(home.root.parent) == 0o755


def test_a_home_that_was_shared_on_purpose_stays_so(home: Home) -> None:
    home.make()
    home.root.chmod(0o750)
    with Store(home).locked(identities(sinusoid_spec("home"))["generate"]):
        pass
    assert _mode(home.root) == 0o750
