"""What `make install` installs: every requirement of pyproject.toml is locked, in a version that it allows, by hashes."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, str]:
    """name → version of each entry of a lock file."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / name).read_text(), flags=re.MULTILINE))


def entries(name: str) -> list[str]:
    return re.split(r"\n(?=[a-z])", (ROOT / name).read_text())[1:]


def test_every_requirement_is_locked_in_a_version_that_it_allows() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    versions = locked("requirements.lock") | locked("constraints.txt")
    bench = versions | locked("requirements-bench.lock")
    for wanted, found in ((PROJECT["project"]["dependencies"] + extras["dev"], versions), (extras["bench"], bench)):
        for requirement in map(Requirement, wanted):
            name = canonicalize_name(requirement.name)
            assert name in found, f"{name} is in no lock: make lock"
            assert requirement.specifier.contains(found[name]), f"{name} {found[name]} is locked: make lock UPGRADE=--upgrade"


def test_every_locked_version_has_hashes() -> None:
    for name in ("requirements.lock", "requirements-bench.lock"):
        assert entries(name)
        for entry in entries(name):
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


def test_the_build_uses_the_locked_setuptools() -> None:
    assert PROJECT["build-system"]["requires"] == [f"setuptools=={locked('requirements.lock')['setuptools']}"]
