"""Reading Omniglot from archives, trees and the web, and what is said when something is wrong with them.

Errors are shown on small archives of made-up drawings: two alphabets with a few characters each.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metaopt_core.distributions.omniglot import OmniglotSpec
from metaopt_core.distributions.omniglot import archives as omniglot_archives
from metaopt_core.distributions.omniglot.archives import PARTS, Part, Pictures, identity, read
from metaopt_core.errors import UserError
from tests.small import png

KEPT = {
    "images_background": ("Greek/character01", "Greek/character02", "Latin/character01"),
    "images_evaluation": ("Angelic/character01", "Tengwar/character03"),
}


def part(name: str, url: str = "http://127.0.0.1:9/nothing.zip", sha256: str = "0" * 64, content: str = "0" * 64) -> Part:
    return Part(name, len({kept.split("/")[0] for kept in KEPT[name]}), len(KEPT[name]), url, sha256, content)


SMALL = tuple(part(name) for name in KEPT)


@pytest.fixture(scope="session")
def small_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("small") / "tree", np.random.default_rng(0)
    for name, kept in KEPT.items():
        for number, character in enumerate(kept):
            (folder / name / character).mkdir(parents=True)
            for drawing in range(20):
                picture = png(random.random((21, 21)) < 0.2)
                (folder / name / character / f"{number:04}_{drawing + 1:02}.png").write_bytes(picture)
    return folder


@pytest.fixture
def tree(small_tree: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_tree, tmp_path / "tree"))


@pytest.fixture
def archives(small_tree: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "archives"
    for name in KEPT:
        zip_up(small_tree, name, folder)
    return folder


def zip_up(tree: Path, name: str, folder: Path) -> None:
    """An archive whose members are in no helpful order and not alone, as macOS makes them."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
        for path in sorted((tree / name).rglob("*.png"), reverse=True):
            archive.write(path, path.relative_to(tree))
            archive.writestr(f"__MACOSX/{path.relative_to(tree).parent}/._{path.name}", b"junk")
        archive.writestr(f"{name}/.DS_Store", b"junk")


def refused(folder: Path, downloads: Path, parts: tuple[Part, ...] = SMALL) -> str:
    with pytest.raises(UserError) as caught:
        read(str(folder), downloads, parts)
    return str(caught.value)


def first_drawing(tree: Path) -> Path:
    return min((tree / "images_background" / "Greek" / "character01").iterdir())


# --- what is right ------------------------------------------------------------------------------------------------------


def test_the_archives_hold_1623_characters_of_50_alphabets_with_20_drawings_each(published: Pictures) -> None:
    assert published.pixels.shape == (1623, 20, 28, 28)
    assert published.pixels.dtype == np.uint8
    assert len(published.alphabets) == len(published.characters) == 1623
    assert (len(set(published.alphabets[:964])), len(set(published.alphabets[964:]))) == (30, 20)
    assert (published.alphabets[0], published.characters[0]) == ("Alphabet_of_the_Magi", "character01")


def test_ink_is_255_on_a_background_of_0_in_every_picture(published: Pictures) -> None:
    assert published.pixels.max() == 255
    assert np.median(published.pixels) == 0
    assert (published.pixels.max(axis=(2, 3)) > 100).all()
    assert (published.pixels.mean(axis=(2, 3)) < 128).all()


def test_a_picture_is_the_published_drawing_at_28_by_28(published: Pictures, omniglot_folder: Path) -> None:
    with zipfile.ZipFile(omniglot_folder / "images_evaluation.zip") as archive:
        member = next(name for name in archive.namelist() if "/Angelic/character01/" in name and name.endswith("_07.png"))
        with archive.open(member) as file, Image.open(file) as picture:
            ink = 1.0 - np.asarray(picture.convert("L"), dtype=float) / 255
    index = next(i for i in range(964, 1623) if (published.alphabets[i], published.characters[i]) == ("Angelic", "character01"))
    small = published.pixels[index, 6] / 255.0
    assert small.mean() == pytest.approx(ink.mean(), rel=0.05)  # the same share of ink
    for side, axis in ((28, 0), (28, 1)):  # and in the same place: centres of mass, in units of the side
        expected = (ink.sum(1 - axis) * (np.arange(105) + 0.5) / 105).sum() / ink.sum()
        assert (small.sum(1 - axis) * (np.arange(side) + 0.5) / side).sum() / small.sum() == pytest.approx(expected, abs=0.01)


def test_archives_and_the_trees_unpacked_from_them_read_alike(small_tree: Path, archives: Path, tmp_path: Path) -> None:
    from_tree, from_archives = read(str(small_tree), tmp_path, SMALL), read(str(archives), tmp_path, SMALL)
    assert np.array_equal(from_tree.pixels, from_archives.pixels)
    assert from_tree.alphabets == from_archives.alphabets == ["Greek", "Greek", "Latin", "Angelic", "Tengwar"]
    assert (
        from_tree.characters
        == from_archives.characters
        == ["character01", "character02", "character01", "character01", "character03"]
    )


def test_one_part_may_be_an_archive_and_the_other_a_tree(tree: Path, archives: Path, tmp_path: Path) -> None:
    shutil.rmtree(tree / "images_evaluation")
    shutil.copy(archives / "images_evaluation.zip", tree)
    assert len(read(str(tree), tmp_path, SMALL).pixels) == 5


def test_files_that_are_no_drawings_are_ignored(tree: Path, tmp_path: Path) -> None:
    before = identity(str(tree), SMALL)
    character = first_drawing(tree).parent
    (character / "._0001_01.png").write_bytes(b"junk")
    (character / "Thumbs.db").write_bytes(b"junk")
    (tree / "images_background" / ".DS_Store").write_bytes(b"junk")
    assert len(read(str(tree), tmp_path, SMALL).pixels) == 5
    assert identity(str(tree), SMALL) == before


# --- identity -----------------------------------------------------------------------------------------------------------


def test_the_same_drawings_have_one_identity_however_they_are_packed(archives: Path, tree: Path) -> None:
    packed = identity(str(archives), SMALL)
    assert packed == identity(str(tree), SMALL)
    shutil.rmtree(tree / "images_evaluation")
    shutil.copy(archives / "images_evaluation.zip", tree)
    assert packed == identity(str(tree), SMALL)
    with zipfile.ZipFile(archives / "images_evaluation.zip") as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(archives / "images_evaluation.zip", "w") as file:  # in another order, stored, and with something else
        for name in reversed(members):
            file.writestr(name, members[name])
        file.writestr("README", "not a drawing")
    assert packed == identity(str(archives), SMALL)


def test_the_identity_of_a_download_is_that_of_the_archives(omniglot_folder: Path) -> None:
    assert identity(None) == identity(str(omniglot_folder))


@pytest.mark.parametrize("folder", ["archives", "tree"])
def test_another_drawing_is_another_identity(folder: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(folder)
    before = identity(str(root), SMALL)
    name = "images_background/Greek/character01"
    if folder == "tree":
        one, other = sorted((root / name).iterdir())[:2]
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)
    else:
        archive = root / "images_background.zip"
        with zipfile.ZipFile(archive) as file:
            members = {member: file.read(member) for member in file.namelist()}
        one_name, other_name = sorted(member for member in members if member.startswith(name))[:2]
        members[one_name], members[other_name] = members[other_name], members[one_name]
        with zipfile.ZipFile(archive, "w") as file:
            for member, data in members.items():
                file.writestr(member, data)
    assert identity(str(root), SMALL) != before


def test_an_identity_is_remembered_for_as_long_as_all_files_look_the_same(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawings = sorted(path for path in tree.rglob("*.png"))
    for path in drawings:
        os.utime(path, (1e9, 1e9))
    monkeypatch.setattr("time.time", lambda: time.time_ns() / 1e9 + 10)
    before = identity(str(tree), SMALL)
    monkeypatch.setattr(omniglot_archives, "_start", lambda path: pytest.fail(f"{path} was read again"))
    assert identity(str(tree), SMALL) == before
    monkeypatch.undo()
    data = drawings[0].read_bytes()
    drawings[0].write_bytes(data[:-1] + b"x")  # as long as before, and its time put back
    os.utime(drawings[0], (1e9, 1e9))
    assert identity(str(tree), SMALL) != before


def test_an_archive_that_cannot_be_read_has_an_identity_too(archives: Path) -> None:
    before = identity(str(archives), SMALL)
    path = archives / "images_background.zip"
    path.write_bytes(path.read_bytes()[:-1000])
    assert identity(str(archives), SMALL) != before


def test_the_identity_of_an_incomplete_folder_raises_nothing(tmp_path: Path) -> None:
    assert identity(str(tmp_path))


def test_the_environment_of_a_run_says_where_the_drawings_are_unless_the_spec_does(archives: Path, tree: Path) -> None:
    spec, environment = OmniglotSpec(distribution="omniglot"), {omniglot_archives.VARIABLE: str(archives)}
    assert spec.located(environment).folder == str(archives)
    assert spec.located({}).folder is None
    named = spec.model_copy(update={"folder": str(tree)})
    assert named.located(environment) == named


def test_a_folder_that_is_not_there_is_named_with_where_it_was_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for ask in (lambda: identity(str(missing)), lambda: read(str(missing), tmp_path)):
        with pytest.raises(UserError, match=rf"generate\.folder: '{missing}' is not a folder"):
            ask()
    with pytest.raises(UserError, match=rf"METAOPT_OMNIGLOT: '{missing}' is not a folder"):
        OmniglotSpec(distribution="omniglot").located({omniglot_archives.VARIABLE: str(missing)})


def test_identity_needs_no_library_that_is_slow_to_import() -> None:
    code = (
        "import sys; from metaopt_core.distributions.omniglot.archives import identity; identity(None); "
        "print({'torch', 'numpy', 'pandas', 'PIL', 'pooch', 'rich', 'prefect', 'mlflow'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- what is wrong ------------------------------------------------------------------------------------------------------


def test_a_missing_part_is_named(tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(tree / "images_evaluation")
    message = refused(tree, tmp_path)
    assert message.startswith(f"{tree}: neither images_evaluation.zip nor a folder images_evaluation is there")


def test_a_truncated_archive_is_named(archives: Path, tmp_path: Path) -> None:
    path = archives / "images_background.zip"
    path.write_bytes(path.read_bytes()[:-1000])
    message = refused(archives, tmp_path)
    assert message.startswith(f"{path}: not a readable zip archive")
    assert "truncated" in message


def test_a_corrupt_member_of_an_archive_is_named(archives: Path, tmp_path: Path) -> None:
    path = archives / "images_evaluation.zip"
    with zipfile.ZipFile(path) as archive:
        member = next(info for info in archive.infolist() if info.filename.startswith("images_evaluation/Tengwar"))
    data = bytearray(path.read_bytes())
    data[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 0x10
    path.write_bytes(data)
    message = refused(archives, tmp_path)
    assert message.startswith(f"{path}: {member.filename} can't be read (Bad CRC-32")


@pytest.mark.parametrize("where", [0.0, 0.3, 0.7, 0.9])
def test_a_flipped_bit_in_a_picture_is_found(tree: Path, tmp_path: Path, where: float) -> None:
    drawing = first_drawing(tree)
    data = bytearray(drawing.read_bytes())
    data[int(where * len(data))] ^= 0x10
    drawing.write_bytes(data)
    assert refused(tree, tmp_path).startswith(f"{tree}: {drawing.relative_to(tree).as_posix()} can't be read")


@pytest.mark.parametrize("kept", [0, 30, 150])
def test_a_truncated_picture_is_named(tree: Path, tmp_path: Path, kept: int) -> None:
    drawing = first_drawing(tree)
    drawing.write_bytes(drawing.read_bytes()[:kept])
    assert refused(tree, tmp_path).startswith(f"{tree}: {drawing.relative_to(tree).as_posix()} can't be read")


def test_a_picture_of_another_size_is_named(tree: Path, tmp_path: Path) -> None:
    drawing = first_drawing(tree)
    Image.new("1", (28, 28)).save(drawing)
    message = refused(tree, tmp_path)
    assert f"{drawing.relative_to(tree).as_posix()} has 28×28 pixels: expected 105×105" in message


def test_a_character_with_too_few_drawings_is_named(tree: Path, tmp_path: Path) -> None:
    first_drawing(tree).unlink()
    assert refused(tree, tmp_path).startswith(f"{tree}: images_background/Greek/character01 holds 19 drawings: expected 20")


def test_a_missing_character_is_told_by_the_counts(tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(tree / "images_background" / "Latin")
    message = refused(tree, tmp_path)
    assert "images_background holds 2 characters of 1 alphabets: expected 3 of 2" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_archive_that_may_not_be_read_is_named(archives: Path, tmp_path: Path) -> None:
    path = archives / "images_background.zip"
    path.chmod(0)
    assert refused(archives, tmp_path).startswith(f"{path}: ")
    with pytest.raises(UserError, match=f"{path}: can't be read"):
        identity(str(archives), SMALL)


def test_a_link_to_nowhere_is_named(tree: Path, tmp_path: Path) -> None:
    drawing = first_drawing(tree)
    drawing.unlink()
    drawing.symlink_to("nowhere.png")
    with pytest.raises(UserError, match=f"{drawing}: can't be read"):
        identity(str(tree), SMALL)
    assert refused(tree, tmp_path).startswith(f"{drawing}: can't be read")


# --- download -----------------------------------------------------------------------------------------------------------


class _Handler(SimpleHTTPRequestHandler):
    """Serves a folder; the first `failures` requests get half of the file, as from a broken connection."""

    failures = 0
    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        if type(self).requests > type(self).failures:
            return super().do_GET()
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.close_connection = True
        return None

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(archives: Path) -> Iterator[tuple[type[_Handler], tuple[Part, ...]]]:
    """A server on loopback with the small archives, and the parts that point there."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(archives))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{http.server_port}"
        digests = {name: hashlib.sha256((archives / f"{name}.zip").read_bytes()).hexdigest() for name in KEPT}
        yield handler, tuple(part(name, f"{address}/{name}.zip", digests[name]) for name in KEPT)
        http.shutdown()
        thread.join()


def test_without_a_folder_the_archives_are_downloaded_once(
    server: tuple[type[_Handler], tuple[Part, ...]], archives: Path, tmp_path: Path
) -> None:
    handler, parts = server
    downloaded = read(None, tmp_path / "downloads", parts)
    assert np.array_equal(downloaded.pixels, read(str(archives), tmp_path, SMALL).pixels)
    assert handler.requests == 2
    read(None, tmp_path / "downloads", parts)
    assert handler.requests == 2


def test_a_damaged_download_is_fetched_again(
    server: tuple[type[_Handler], tuple[Part, ...]], archives: Path, tmp_path: Path
) -> None:
    _, parts = server
    (tmp_path / "downloads").mkdir()
    kept = tmp_path / "downloads" / "images_background.zip"
    kept.write_bytes((archives / "images_background.zip").read_bytes()[:1000])
    assert len(read(None, tmp_path / "downloads", parts).pixels) == 5
    assert kept.read_bytes() == (archives / "images_background.zip").read_bytes()


def test_a_connection_that_breaks_is_tried_again(server: tuple[type[_Handler], tuple[Part, ...]], tmp_path: Path) -> None:
    handler, parts = server
    handler.failures = 1
    assert len(read(None, tmp_path, parts).pixels) == 5
    assert handler.requests == 3


@pytest.fixture
def _once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omniglot_archives, "_ATTEMPTS", 1)


@pytest.mark.usefixtures("_once")
def test_a_download_with_a_wrong_checksum_is_refused_and_not_kept(
    server: tuple[type[_Handler], tuple[Part, ...]], tmp_path: Path
) -> None:
    url = server[1][0].url
    with pytest.raises(UserError, match=f"{url}: the download failed .*expected the official archive with SHA-256 {'0' * 64}"):
        read(None, tmp_path, (part("images_background", url),))
    assert not list(tmp_path.glob("images_background*"))


@pytest.mark.usefixtures("_once")
def test_a_server_that_does_not_answer_is_named_with_what_to_do_instead(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"http://127\.0\.0\.1:9/nothing\.zip: the download failed .*generate\.folder or METAOPT_OMNIGLOT"
    ):
        read(None, tmp_path, SMALL)


@pytest.mark.usefixtures("_once")
def test_a_file_that_is_not_on_the_server_is_named(server: tuple[type[_Handler], tuple[Part, ...]], tmp_path: Path) -> None:
    url = server[1][0].url.replace("background", "nothing")
    with pytest.raises(UserError, match="404"):
        read(None, tmp_path, (part("images_background", url),))


def test_the_official_parts_add_up_to_all_of_omniglot() -> None:
    assert (sum(each.characters for each in PARTS), sum(each.alphabets for each in PARTS)) == (1623, 50)
