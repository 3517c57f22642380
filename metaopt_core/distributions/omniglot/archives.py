"""The Omniglot pictures (Lake et al. 2015), read from two zip archives, the trees unpacked from them, or the web.

A drawing is `<part>/<alphabet>/<character>/<drawing>.png`. Drawings come in the same order from every source, and
everything that can be wrong with a source is detected and reported here.
"""

import hashlib
import io
import os
import stat
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaopt_core.distributions import content
from metaopt_core.distributions.omniglot.settings import DRAWINGS_PER_CHARACTER, SIZE
from metaopt_core.errors import UserError
from metaopt_core.spec.paths import expanded

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from metaopt_core import progress

VARIABLE = "METAOPT_OMNIGLOT"  # read when a run begins, see OmniglotSpec.located
SIDE = 105  # pixels of a drawing as published
_ATTEMPTS = 4  # of a download, with a pause of 1, 2 and 3 s between them
_CHUNK = 1 << 16  # bytes
_DEPTH = 3  # folders around a drawing: part, alphabet, character
_LARGEST = 1 << 18  # bytes of a drawing: with 64 bits a pixel it would be a third of that, and the published ones have some hundred
_MEGABYTE = 10**6


@dataclass(frozen=True)
class Part:
    """One of the two halves in which Omniglot is published: its folder, what it holds, and its official archive.

    sha256: of that archive. content: the digest of its drawings, however they are packed.
    """

    name: str
    alphabets: int
    characters: int
    url: str
    sha256: str
    content: str

    @property
    def archive(self) -> str:
        return f"{self.name}.zip"


# The digests of the archives are those of TensorFlow Datasets (url_checksums/omniglot.txt) and of torchvision (prototype datasets),
# independently. Those of the content are of archives that hold the same drawings and were zipped anew; 5,840 of the 19,280
# background drawings were compared with official ones (images_background_small1.zip and _small2.zip): the same to the byte.
_OFFICIAL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
PARTS = (
    Part(
        "images_background",
        30,
        964,
        f"{_OFFICIAL}/images_background.zip",
        "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
        "405bb56bea2896f81510c556e2f49adea73c9fbe9681f4583c5748850470df86",
    ),
    Part(
        "images_evaluation",
        20,
        659,
        f"{_OFFICIAL}/images_evaluation.zip",
        "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
        "3b1c1553037f504a05470666886962cf94714e5a665bf4d98d5691c2f6cb74b2",
    ),
)


@dataclass(frozen=True)
class Pictures:
    """All drawings. pixels: uint8 [characters, 20, 28, 28], ink is 255; alphabets and characters: names, one a character."""

    pixels: "npt.NDArray[np.uint8]"
    alphabets: list[str]
    characters: list[str]


@dataclass(frozen=True)
class _Character:
    alphabet: str
    name: str
    drawings: list[str]  # paths from the source's root, sorted


def identity(folder: str | None, parts: Sequence[Part] = PARTS) -> str:
    """A digest of the drawings that `read` would use: the same for archives, trees and a download of the same drawings.

    `read` reports what is wrong with a folder; only a missing or unreadable one raises UserError here.
    """
    root = _folder(folder)
    with _readable():
        lines = [f"{part.name} {part.content if root is None else _content(root, part)}" for part in parts]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _content(root: Path, part: Part) -> str:
    archive = (root / part.archive).absolute()
    if archive.is_file():
        return content.remembered(f"drawings of {part.name}", {str(archive): archive.stat()}, lambda: _content_of(archive, part))
    tree = (root / part.name).absolute()
    files = dict(_walk(tree, part.name))
    looks = {f"{tree.parent}/{path}": status for path, status in files.items()}  # 32,460 of them: a Path each takes half a second
    return content.remembered("drawings", looks, lambda: content.digest((path, _start(tree.parent / path)) for path in files))


def _content_of(archive: Path, part: Part) -> str:
    """The digest of an archive's content; of the file itself if `read` will refuse the archive."""
    try:
        with zipfile.ZipFile(archive) as file:
            return content.digest((name, _from_archive(file, name)) for name in _drawings(file, part))
    except Exception:  # zipfile raises many kinds
        with archive.open("rb") as whole:
            return hashlib.file_digest(whole, "sha256").hexdigest()


def read(folder: str | None, downloads: Path, parts: Sequence[Part] = PARTS) -> Pictures:
    """All drawings: background before evaluation, then by alphabet, character and drawing.

    Args:
        folder: folder with the archives or the trees; without it the official archives are downloaded.
        downloads: folder that keeps downloaded archives.
        parts: what to expect.

    Raises:
        UserError: something is missing, truncated or corrupt, or can't be downloaded; it names the file.
    """
    root = _folder(folder)
    if root is None:
        for part in parts:
            _download(part, downloads)
        root = downloads
    with ExitStack() as stack:
        work: list[tuple[_Source, _Character]] = []
        for part in parts:
            source = stack.enter_context(_open(root, part))
            work += [(source, character) for character in _characters(source, part)]
        return _decode_all(work)


def folder_named(named: str, by: str) -> Path:
    """A folder with archives or trees. by: what names it. Raises UserError if there is none."""
    try:
        path = expanded(named)
    except UserError as error:
        raise UserError(f"{by}: {named!r}: {error}") from None
    if not path.is_dir():
        raise UserError(
            f"{by}: {named!r} is not a folder: expected one that holds {' and '.join(part.archive for part in PARTS)}, or the "
            "trees unpacked from them; correct it, or remove it to have the archives downloaded"
        )
    return path


def _folder(folder: str | None) -> Path | None:
    """The folder that the spec names; none means download."""
    return None if folder is None else folder_named(folder, "generate.folder")


@contextmanager
def _readable() -> Iterator[None]:
    """Names the file if the operating system refuses to read it."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename}: can't be read ({error.strerror}): expected readable files; check permissions and links"
        ) from None


# --- sources ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """Where one part is. place: as errors name it; paths: all its drawings; read: the bytes of one (checked: by a sum)."""

    place: Path
    paths: list[str]
    read: Callable[[str], bytes]
    checked: bool


@contextmanager
def _open(root: Path, part: Part) -> Iterator[_Source]:
    archive, tree = root / part.archive, root / part.name
    if archive.is_file():
        with _archive(archive) as file:
            yield _Source(archive, _drawings(file, part), lambda name: _from_archive(file, name), checked=True)
    elif tree.is_dir():
        with _readable():
            paths = [path for path, _ in _walk(tree, part.name)]
        yield _Source(root, paths, lambda path: _from_tree(root / path), checked=False)
    else:
        raise UserError(
            f"{root}: neither {part.archive} nor a folder {part.name} is there: expected one of them; it can be had from {part.url}"
        )


def _drawings(file: zipfile.ZipFile, part: Part) -> list[str]:
    return [name for name in file.namelist() if name.startswith(f"{part.name}/") and _is_drawing(name)]


def _from_archive(file: zipfile.ZipFile, name: str) -> bytes:
    """A member, up to its stated size; one that states to be larger than a drawing, or can't be inflated in parts, is refused."""
    info = file.getinfo(name)
    if info.file_size > _LARGEST:
        raise _too_large(info.file_size)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("it is compressed by another method than the published ones")
    with file.open(info) as member:
        return member.read(info.file_size)  # without the size, the whole stream would be inflated


def _from_tree(path: Path) -> bytes:
    data = _start(path)
    if len(data) > _LARGEST:
        raise _too_large(path.stat().st_size)
    return data


def _start(path: Path) -> bytes:
    """A file, up to one byte more than a drawing may have."""
    with path.open("rb") as file:
        return file.read(_LARGEST + 1)


def _too_large(size: int) -> ValueError:
    return ValueError(f"it has {size:,} bytes, and no drawing is larger than {_LARGEST:,}")


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises many kinds: BadZipFile, NotImplementedError …
        raise UserError(
            f"{path}: not a readable zip archive ({error}): expected a complete one; it may be truncated, so copy or "
            "download it again"
        ) from None


def _walk(tree: Path, name: str) -> Iterator[tuple[str, os.stat_result]]:
    """Path (which starts with `name`) and status of every drawing below a folder; nothing if there is no folder."""
    if not tree.is_dir():
        return
    with os.scandir(tree) as entries:
        for entry in entries:
            path = f"{name}/{entry.name}"
            if entry.is_dir() and path.count("/") < _DEPTH:  # drawings are no deeper, and a link may lead back up
                yield from _walk(Path(entry.path), path)
            elif _is_drawing(path) and stat.S_ISREG((looks := entry.stat()).st_mode):
                yield path, looks


def _is_drawing(path: str) -> bool:
    """Whether a path is a drawing, not a leftover of file managers (`__MACOSX/._x.png`, `.DS_Store`)."""
    names = path.split("/")
    return (
        len(names) == _DEPTH + 1 and path.lower().endswith(".png") and not any(name.startswith((".", "__MACOSX")) for name in names)
    )


def _characters(source: _Source, part: Part) -> list[_Character]:
    """The characters of a part in order, each with all its drawings, in the expected numbers."""
    drawings: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in source.paths:
        _, alphabet, character, _ = path.split("/")
        drawings[alphabet, character].append(path)
    for (alphabet, character), paths in drawings.items():
        if len(paths) != DRAWINGS_PER_CHARACTER:
            raise UserError(
                f"{source.place}: {part.name}/{alphabet}/{character} holds {len(paths)} drawings: expected "
                f"{DRAWINGS_PER_CHARACTER}; unpack or download {part.archive} again"
            )
    alphabets = {alphabet for alphabet, _ in drawings}
    if (len(drawings), len(alphabets)) != (part.characters, part.alphabets):
        raise UserError(
            f"{source.place}: {part.name} holds {len(drawings)} characters of {len(alphabets)} alphabets: expected "
            f"{part.characters} of {part.alphabets}; unpack or download {part.archive} again"
        )
    return [_Character(*names, sorted(paths)) for names, paths in sorted(drawings.items())]


# --- pictures -----------------------------------------------------------------------------------------------------------


def _decode_all(work: Sequence[tuple[_Source, _Character]]) -> Pictures:
    import numpy as np

    from metaopt_core import progress

    pixels = np.empty((len(work), DRAWINGS_PER_CHARACTER, SIZE, SIZE), dtype=np.uint8)
    # Threads, because Pillow and zlib release the interpreter's lock while they work.
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress.bar(len(work), "reading Omniglot") as bar:
        for index, drawings in enumerate(pool.map(lambda item: _decode(*item), work)):
            pixels[index] = drawings
            bar.update(index + 1)
    return Pictures(pixels, [character.alphabet for _, character in work], [character.name for _, character in work])


def _decode(source: _Source, character: _Character) -> "npt.NDArray[np.uint8]":
    """The drawings of a character, [20, 28, 28], ink is 255.

    They are resized from grey pixels by the antialiased triangle filter, which keeps thin strokes whole. The 2017 code resizes
    1-bit pictures, for which Pillow takes the nearest pixel whatever the filter: a nearest neighbour in pixels then classifies
    37 % of 5-way 1-shot queries, against 43 to 46 % with a filter on grey pixels (box 43, Lanczos 44, triangle 46).
    """
    import numpy as np
    from PIL import Image

    pictures = []
    for path in character.drawings:
        try:
            data = source.read(path)
            if not source.checked:
                Image.open(io.BytesIO(data), formats=["PNG"]).verify()  # checksums: decoding alone misses many a flipped bit
            picture = Image.open(io.BytesIO(data), formats=["PNG"])
            grey = picture.convert("L") if picture.size == (SIDE, SIDE) else None
        except Exception as error:  # zipfile and Pillow raise many kinds: BadZipFile, zlib.error, SyntaxError, OSError …
            raise UserError(
                f"{source.place}: {path} can't be read ({str(error) or type(error).__name__}): expected a PNG picture; the file is "
                "damaged or truncated, so copy, unpack or download it again"
            ) from None
        if grey is None:
            raise UserError(
                f"{source.place}: {path} has {picture.width}×{picture.height} pixels: expected {SIDE}×{SIDE}, as published; unpack "
                "or download it again"
            )
        pictures.append(np.asarray(grey.resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
    return 255 - np.stack(pictures)  # ink is black in the files


# --- download -----------------------------------------------------------------------------------------------------------


def _download(part: Part, downloads: Path) -> None:
    """Fetch a part's official archive unless an undamaged one is there."""
    import pooch

    fetcher = pooch.create(
        path=downloads,
        base_url="",
        registry={part.archive: f"sha256:{part.sha256}"},
        urls={part.archive: part.url},
        retry_if_failed=_ATTEMPTS - 1,
    )
    try:
        fetcher.fetch(part.archive, downloader=_fetch)
    except (ValueError, OSError) as error:  # a wrong checksum is a ValueError; requests' errors are OSErrors
        raise UserError(
            f"{part.url}: the download failed ({error}): expected the official archive with SHA-256 {part.sha256}; check the "
            f"network, or get {' and '.join(each.archive for each in PARTS)} by other means and name their "
            f"folder in generate.folder or {VARIABLE}"
        ) from None


def _fetch(url: str, output_file: Any, fetcher: Any) -> None:
    """One attempt at a download, in pooch's terms, with our progress bar in megabytes."""
    import pooch

    with ExitStack() as stack:
        bar = _Megabytes(stack, f"downloading {url.rsplit('/', 1)[-1]}, MB")
        pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK)(url, output_file, fetcher)


class _Megabytes:
    """What pooch expects of a progress bar, told in bytes; it sets `total`, as the server says it, before the first update."""

    def __init__(self, stack: ExitStack, description: str):
        self.total = 0
        self._stack, self._description = stack, description
        self._bar: progress.Bar | None = None
        self._bytes = 0

    def update(self, count: int) -> None:
        from metaopt_core import progress

        self._bytes += count
        if self._bar is None:
            self._bar = self._stack.enter_context(progress.bar(max(1, self.total // _MEGABYTE), self._description))
        self._bar.update(min(self._bytes, self.total) // _MEGABYTE)

    def reset(self) -> None:
        self._bytes = 0

    def close(self) -> None:
        """The stack closes it, also after a failure, of which pooch says nothing here."""
