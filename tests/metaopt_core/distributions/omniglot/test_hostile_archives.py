"""Archives and trees that are made to be too much: refused in one message, before they are in memory."""

import contextlib
import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from metaopt_core.distributions.omniglot import OmniglotSpec
from metaopt_core.distributions.omniglot.archives import Part, identity, read
from metaopt_core.errors import UserError

NAMES = [f"images_background/Greek/character01/{number:04}_01.png" for number in range(20)]
PARTS = (Part("images_background", 1, 1, "http://127.0.0.1:9/nothing.zip", "0" * 32, "0" * 32),)
GIGABYTE = 10**9
ROOT = Path(__file__).resolve().parents[4]


def drawing() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((105, 105), 255, np.uint8)).convert("1").save(file, "PNG")
    return file.getvalue()


def zipped(first: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive whose first drawing is of other bytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name in NAMES:
            file.writestr(name, first if name == NAMES[0] else drawing(), method)
    return data.getvalue()


RIGHT = zipped(drawing())


@pytest.fixture
def archive(tmp_path: Path) -> Callable[..., Path]:
    def made(first: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
        """A folder with such an archive."""
        (tmp_path / "images_background.zip").write_bytes(zipped(first, method))
        return tmp_path

    return made


def refused(folder: Path) -> tuple[str, int]:
    """What is said, and how many bytes it took."""
    tracemalloc.start()
    with pytest.raises(UserError) as error:
        read(str(folder), folder, PARTS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return str(error.value), peak


def test_a_small_archive_is_read(archive: Callable[..., Path]) -> None:
    folder = archive(drawing())
    assert read(str(folder), folder, PARTS).pixels.shape == (1, 20, 28, 28)


def test_a_member_of_a_gigabyte_is_not_inflated(archive: Callable[..., Path]) -> None:
    folder = archive(drawing())
    with zipfile.ZipFile(folder / "images_background.zip", "w", zipfile.ZIP_DEFLATED) as file:
        with file.open(NAMES[0], "w") as member:
            for _ in range(100):
                member.write(bytes(GIGABYTE // 100))
        for name in NAMES[1:]:
            file.writestr(name, drawing())
    message, peak = refused(folder)
    why = "it has 1,000,000,000 bytes, and no drawing is larger than 262,144"
    assert message.startswith(f"{folder}/images_background.zip: {NAMES[0]} can't be read ({why})")
    assert peak < 50 * 2**20


@pytest.mark.parametrize("said_size", [0, 1000])
def test_a_member_that_says_it_is_small_is_not_inflated_either(archive: Callable[..., Path], said_size: int) -> None:
    folder = archive(bytes(GIGABYTE // 10))
    path = folder / "images_background.zip"
    data, size = path.read_bytes(), struct.pack("<I", GIGABYTE // 10)
    assert data.count(size) == 2  # in the member's own header and in the directory
    path.write_bytes(data.replace(size, struct.pack("<I", said_size)))
    message, peak = refused(folder)
    assert f"{NAMES[0]} can't be read" in message
    assert peak < 50 * 2**20


def test_a_method_that_cannot_be_inflated_in_parts_is_refused(archive: Callable[..., Path]) -> None:
    message, _ = refused(archive(drawing(), zipfile.ZIP_BZIP2))
    assert "it is compressed by another method than the published ones" in message


@given(st.lists(st.tuples(st.integers(0, 2**32), st.sampled_from([0, 1, 3, 80]), st.binary(max_size=6)), min_size=1, max_size=6))
@example([(RIGHT.index(b"PK\1\2") + 6, 1, b"\xff")])  # the version that is needed to read a member
def test_an_archive_of_anything_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, bytes]]
) -> None:
    data = RIGHT
    for at, length, other in changes:
        start = at % len(data)
        data = data[:start] + other + data[start + length :]
    folder = tmp_path_factory.getbasetemp()
    (folder / "images_background.zip").write_bytes(data)
    identity(str(folder), PARTS)
    with contextlib.suppress(UserError):
        assert read(str(folder), folder, PARTS).pixels.shape == (1, 20, 28, 28)


def test_a_picture_of_very_many_pixels_is_not_decoded(archive: Callable[..., Path]) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = 12_000
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side * (side // 8 + 1)), 9)
    folder = archive(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    code = (
        "import resource, sys; from tests.metaopt_core.distributions.omniglot.test_hostile_archives import PARTS, read, Path\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"try: read({str(folder)!r}, Path(), PARTS)\n"
        "except Exception as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    *_, message, kilobytes = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.splitlines()
    assert f"{NAMES[0]} has 12000×12000 pixels: expected 105×105" in message
    assert int(kilobytes) < 50_000  # decoded, it has 144,000


def tree(folder: Path) -> Path:
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(drawing())
    return folder


def test_a_large_file_in_a_tree_is_not_read(tmp_path: Path) -> None:
    with (tree(tmp_path) / NAMES[0]).open("wb") as file:
        file.truncate(10**11)
    message, peak = refused(tmp_path)
    assert "it has 100,000,000,000 bytes, and no drawing is larger than 262,144" in message
    assert peak < 50 * 2**20


def test_a_pipe_in_a_tree_is_not_waited_for(tmp_path: Path) -> None:
    (tree(tmp_path) / NAMES[0]).unlink()
    os.mkfifo(tmp_path / NAMES[0])
    message, _ = refused(tmp_path)
    assert "images_background/Greek/character01 holds 19 drawings: expected 20" in message


def test_a_link_that_leads_back_up_is_not_followed_forever(tmp_path: Path) -> None:
    before = identity(str(tree(tmp_path)), PARTS)
    (tmp_path / "images_background" / "Greek" / "character01" / "up").symlink_to("../../..")
    assert identity(str(tmp_path), PARTS) == before
    assert read(str(tmp_path), tmp_path, PARTS).pixels.shape == (1, 20, 28, 28)


def test_the_folder_of_a_user_who_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^METAOPT_OMNIGLOT: '~nosuchuser/x': no user nosuchuser on this machine"):
        OmniglotSpec(distribution="omniglot").located({"METAOPT_OMNIGLOT": "~nosuchuser/x"})
    with pytest.raises(UserError, match=r"^generate.folder: '~nosuchuser/x': no user nosuchuser on this machine"):
        read("~nosuchuser/x", tmp_path, PARTS)
