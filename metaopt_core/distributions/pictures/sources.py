"""Where pictures are: a folder, a zip or tar archive, or the files that a CSV file names; and what each picture's path says.

Whatever the source, pictures come with the same names, so that the same pictures have one identity however they are packed. Nothing
is unpacked onto the disk, and no more of an archive's member is read than a picture may have.
"""

import csv
import hashlib
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from metaopt_core.distributions import content
from metaopt_core.distributions.pictures.settings import PicturesSettings
from metaopt_core.distributions.splits import SPELLINGS, SplitName, shown
from metaopt_core.errors import UserError

LARGEST = 64 * 2**20  # bytes of a picture's file
_SUFFIXES = frozenset(
    (
        *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm"),
        *(".tga", ".tif", ".tiff", ".webp"),
    )
)
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz")


@dataclass(frozen=True)
class Picture:
    """name: its path in the source. label: the name of its class. group: that of the class's group. split: as the source says."""

    name: str
    label: str
    group: str | None = None
    split: SplitName | None = None


@dataclass(frozen=True)
class Source:
    """pictures: all that the source has, in order. read: names → (name, bytes) of each, in an order of the source's own; bytes are
    cut short behind LARGEST."""

    place: Path
    pictures: Sequence[Picture]
    read: Callable[[Sequence[str]], Iterator[tuple[str, bytes | Exception]]]


def identity(spec: PicturesSettings) -> str:
    """A digest of the pictures' names and contents; remembered, as reading all of them takes long. Raises UserError."""
    place = spec.place.absolute()
    if place.is_file() and place.suffix.lower() != ".csv":
        looks = {str(place): place.stat()}
    else:
        with opened(spec) as source:
            root = place if place.is_dir() else place.parent
            looks = {str(root / one.name): (root / one.name).stat() for one in source.pictures if (root / one.name).is_file()}
    what = f"pictures as {spec.layout} in {place}"

    def find() -> str:
        with opened(spec) as source:
            meaning = {one.name: f"{one.group or ''}/{one.label} {one.split or ''}" for one in source.pictures}
            lines = []
            for name, data in source.read(list(meaning)):
                found = hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else f"unreadable: {type(data).__name__}"
                lines.append(f"{meaning[name]} {Path(name).name} {found}")
        return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()

    if place.suffix.lower() == ".csv":
        looks[str(place)] = place.stat()
    return content.remembered(what, looks, find)


@contextmanager
def opened(spec: PicturesSettings) -> Iterator[Source]:
    """The source that a spec names. Raises UserError where it can't be read, or has no pictures."""
    place = spec.place
    if place.is_dir():
        names = sorted(_walk(place))
        yield Source(place, _meant(spec, place, names), lambda names: _from_files(place, names))
    elif place.suffix.lower() == ".csv":
        yield Source(place, _named_by(place), lambda names: _from_files(place.parent, names))
    elif place.name.lower().endswith(_ARCHIVES):
        with _archive(place) as (names, read):
            yield Source(place, _meant(spec, place, sorted(name for name in names if _is_picture(name))), read)
    else:
        raise UserError(
            f"generate.path: {place} is neither a folder, an archive ({', '.join(_ARCHIVES)}) nor a CSV file: expected one of them"
        )


# --- what paths mean ------------------------------------------------------------------------------------------------------


def _meant(spec: PicturesSettings, place: Path, names: Sequence[str]) -> list[Picture]:
    """Pictures with their classes. Raises UserError where there are none."""
    if not names:
        raise UserError(
            f"generate.path: {place} has no pictures: expected folders with files such as .jpg or .png, a folder a class{spec.how}"
        )
    if not spec.layout:
        shared = os.path.commonpath([name.rpartition("/")[0] for name in names]) if len(names) > 1 else ""
        start = len(shared) + 1 if shared else 0
        found = [_by_folder(name, name[start:]) for name in names]
        if any(one is None for one in found):
            loose = shown([name for name, one in zip(names, found, strict=True) if one is None], 3)
            raise UserError(
                f"generate.path: {place} has pictures outside of a class's folder ({loose}): expected a folder for each class"
            )
        return [one for one in found if one is not None]
    patterns = [_pattern(one) for one in spec.layout]
    matches = [(name, next(filter(None, (pattern.fullmatch(name) for pattern in patterns)), None)) for name in names]
    pictures = [_by_match(name, match.groupdict(), place) for name, match in matches if match]
    if not pictures:
        folders = "*/" * (names[0].count("/") - 1)
        raise UserError(
            f"generate.layout: none of the {len(names)} pictures of {place} is where {' or '.join(spec.layout)} has it; the first "
            f"is {names[0]}: expected a layout such as {folders}{{class}}/*"
        )
    return pictures


def _by_folder(name: str, below: str) -> Picture | None:
    folders = below.split("/")[:-1]
    if not folders:
        return None
    return Picture(name, folders[-1], "/".join(folders[:-1]) or None)


def _by_match(name: str, found: Mapping[str, str], place: Path) -> Picture:
    split = found.get("split")
    if split is not None and split.lower() not in SPELLINGS:
        raise UserError(f"generate.layout: {place}: {name} has the split {split}: expected train, val or test")
    return Picture(name, found["class"].replace("/", "-"), found.get("group"), SPELLINGS[split.lower()] if split else None)


def _pattern(layout: str) -> re.Pattern[str]:
    parts = re.split(r"(\{class\}|\{\w+\}|\*)", layout)
    known = {"{class}": "(?P<class>.+)", "*": "[^/]*"}
    named = {part: f"(?P<{part[1:-1]}>[^/]+)" for part in parts if part.startswith("{")}
    return re.compile("".join({**named, **known}.get(part, re.escape(part)) for part in parts))


def _named_by(file: Path) -> list[Picture]:
    """The pictures that a CSV file names, with paths relative to it. Raises UserError with the line."""
    place = f"generate.path: {file}"
    pictures = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened_file:
            rows = csv.DictReader(opened_file, strict=True)
            columns = list(rows.fieldnames or ())
            for needed in ("file", "label"):
                if needed not in columns:
                    found = ", ".join(columns) or "(none)"
                    raise UserError(
                        f"{place} has columns {found}: expected `file` and `label`, and `group` or `split` if there are"
                    )
            for row in rows:
                split = row.get("split") or None
                if not row["file"] or not row["label"]:
                    raise UserError(f"{place}:{rows.line_num}: no {'label' if row['file'] else 'file'}: expected one in each row")
                if split is not None and split.lower() not in SPELLINGS:
                    raise UserError(f"{place}:{rows.line_num}: the split {split}: expected train, val or test")
                pictures.append(
                    Picture(row["file"], row["label"], row.get("group") or None, SPELLINGS[split.lower()] if split else None)
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{place}: can't be read ({error}): expected a CSV file in UTF-8") from None
    if not pictures:
        raise UserError(f"{place} names no pictures: expected a row for each")
    return pictures


# --- reading --------------------------------------------------------------------------------------------------------------


def _is_picture(name: str) -> bool:
    """Whether a path is that of a picture, and not what file managers leave behind (`__MACOSX/._x.png`, `.DS_Store`)."""
    return PurePosixPath(name).suffix.lower() in _SUFFIXES and not any(
        part.startswith((".", "__MACOSX")) for part in name.split("/")
    )


def _walk(root: Path) -> Iterator[str]:
    """Paths of all pictures below a folder; links to folders are not followed, as they may lead back up."""
    try:
        for folder, _, files in os.walk(root, onerror=_refused):
            below = os.path.relpath(folder, root)
            for file in files:
                name = file if below == "." else f"{below}/{file}"
                if _is_picture(name) and Path(folder, file).is_file():
                    yield name
    except OSError as error:
        raise UserError(f"generate.path: {error.filename}: can't be read ({error.strerror}): check permissions and links") from None


def _refused(error: OSError) -> None:
    raise error


def _from_files(root: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes | Exception]]:
    for name in names:
        try:
            with (root / name).open("rb") as file:
                yield name, file.read(LARGEST + 1)
        except OSError as error:
            yield name, error


@contextmanager
def _archive(place: Path) -> Iterator[tuple[list[str], Callable[[Sequence[str]], Iterator[tuple[str, bytes | Exception]]]]]:
    try:
        if place.suffix.lower() == ".zip":
            with zipfile.ZipFile(place) as zipped:
                yield zipped.namelist(), lambda names: ((name, _member(zipped, name)) for name in names)
        else:
            with tarfile.open(place) as tarred:
                members = [one.name.removeprefix("./") for one in tarred if one.isfile()]
            yield members, lambda names: _from_tar(place, frozenset(names))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, tarfile.TarError, EOFError, OSError) as error:
        raise UserError(
            f"generate.path: {place}: not a readable archive ({error}): expected a complete one; it may be truncated, so copy or "
            "download it again"
        ) from None


def _member(zipped: zipfile.ZipFile, name: str) -> bytes | Exception:
    """A member as far as a picture may go: what says to be larger isn't inflated."""
    try:
        info = zipped.getinfo(name)
        if info.file_size > LARGEST:
            return ValueError(f"{info.file_size:,} bytes, and a picture has at most {LARGEST:,}")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return ValueError("it is compressed by a method that can't be inflated in parts")
        with zipped.open(info) as member:
            return _start(member)
    except Exception as error:  # zipfile raises many kinds: BadZipFile, zlib.error, RuntimeError for encrypted ones …
        return error


def _from_tar(place: Path, names: frozenset[str]) -> Iterator[tuple[str, bytes | Exception]]:
    """In the order of the archive, which can't be read in another without reading it many times."""
    with tarfile.open(place) as tarred:
        for member in tarred:
            name = member.name.removeprefix("./")
            if not member.isfile() or name not in names:
                continue
            if member.size > LARGEST:
                yield name, ValueError(f"{member.size:,} bytes, and a picture has at most {LARGEST:,}")
                continue
            file = tarred.extractfile(member)
            if file is not None:
                yield name, _start(file)


def _start(file: IO[bytes]) -> bytes:
    return file.read(LARGEST + 1)
