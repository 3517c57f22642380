"""The compiled library: made once, kept for this user alone, and never loaded if it isn't what was made."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from metaopt_core import kernels
from metaopt_core.kernels import compiled
from metaopt_core.networks.build import build
from metaopt_core.spec.networks import Conv4Spec


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder of its own for compiled files, and no library loaded."""
    kernels.configure(tmp_path / "compiled")
    yield tmp_path / "compiled"
    kernels.configure(None)


def again(folder: Path) -> dict[str, int]:
    """What is in the folder after another process would have loaded the library: file → time of its last change."""
    compiled._library.cache_clear()
    assert kernels.usable(torch.ones(1))
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def replace(path: Path, content: bytes) -> None:
    """Put another file in its place. This process has loaded the one that is there, and would die of a change inside of it."""
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o700)


@pytest.mark.slow
def test_without_a_compiler_one_line_says_so_and_numbers_are_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    network = build(Conv4Spec(name="conv4", filters=8), (1, 28, 28), 5)
    params = {name: value[None] for name, value in network.init(0).items()}
    x = torch.rand(1, 4, 1, 28, 28)
    assert kernels.usable(x)
    expected = network(params, x)
    monkeypatch.setenv("CC", "no-such-compiler")
    compiled._library.cache_clear()
    for _ in range(2):
        torch.testing.assert_close(network(params, x), expected)
    written = capsys.readouterr().err
    assert written.startswith("computing without compiled kernels, more slowly: ")
    assert written.count("\n") == 1


def test_it_is_made_once_and_kept_for_its_user_alone(folder: Path) -> None:
    first = again(folder)
    assert sorted(Path(name).suffix for name in first) == [".sha256", ".so"]
    assert [stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (folder, *folder.iterdir())] == [0, 0, 0]
    assert again(folder) == first


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut short", "another's content", "no digest", "others may write", "a link"])
def test_what_is_not_what_was_made_is_made_again(folder: Path, damage: str) -> None:
    """Loading a file that is cut short kills the process, so this is tried in another one."""
    first = again(folder)
    made, digest = (next(folder.glob(f"*{suffix}")) for suffix in (".so", ".sha256"))
    whole = made.read_bytes()
    match damage:
        case "cut short":
            replace(made, whole[: len(whole) // 2])
        case "another's content":
            replace(made, whole + b"more")
        case "no digest":
            digest.unlink()
        case "others may write":
            made.chmod(0o722)
        case "a link":
            made.rename(folder / "elsewhere")
            made.symlink_to(folder / "elsewhere")
    loads = "import sys, pathlib, torch; from metaopt_core import kernels; kernels.configure(pathlib.Path(sys.argv[1]))"
    tried = subprocess.run([sys.executable, "-c", f"{loads}; sys.exit(not kernels.usable(torch.ones(1)))", folder], check=False)
    assert tried.returncode == 0
    assert made.read_bytes() == whole
    assert made.lstat().st_mtime_ns > first[made.name]
    assert compiled._trusted(made)


def test_a_folder_that_others_can_use_becomes_private(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    again(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_the_folder_of_another_user_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert kernels.usable(torch.ones(1))
    assert list(folder.iterdir()) == []
    assert len(list((tmp_path / "cache/metaopt/compiled").glob("*.so"))) == 1


def test_without_any_folder_of_ones_own_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    kernels.configure(None)
    try:
        assert not kernels.usable(torch.ones(1))
    finally:
        compiled._library.cache_clear()
    assert capsys.readouterr().err.startswith("computing without compiled kernels, more slowly: ")
