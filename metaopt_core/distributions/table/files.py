"""Which files a table is read from, and what they are by their content."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from metaopt_core.distributions import content
from metaopt_core.distributions.table.settings import VARIABLE, TableSettings
from metaopt_core.errors import UserError
from metaopt_core.spec.addresses import scrubbed
from metaopt_core.spec.paths import expanded

_NAMED = 10  # bad rows that a message names


@dataclass(frozen=True)
class Place:
    """A file, or a database's query. stem: the name of the task where the file's name says it. header: lines before the rows."""

    name: str
    path: str
    stem: str
    header: int = 0

    def rows(self, numbers: Sequence[int]) -> str:
        """Rows in words: at most ten of them, by line where the file has lines."""
        noun = "line" if self.header else "row"
        shown = ", ".join(str(number + 1 + self.header) for number in numbers[:_NAMED])
        more = len(numbers) - _NAMED
        return f"{noun}{'s' if len(numbers) > 1 else ''} {shown}" + (f" and {more} more" if more > 0 else "")


def places(spec: TableSettings) -> list[Place]:
    """The files of a table, in order. Raises UserError where there is none."""
    if spec.path is None:
        return [Place("generate.query", "", "")]
    if "://" in spec.path:
        with readable(spec.path):
            import fsspec

            system, path = fsspec.core.url_to_fs(spec.path)
            scheme = spec.path.partition("://")[0]
            paths = [f"{scheme}://{found}" for found in sorted(system.glob(path))] if "*" in path else [spec.path]
            if not all(system.exists(one) for one in paths):
                paths = []
    else:
        written = Path(spec.path)
        there = written.is_file()  # a name may hold what would be a pattern
        paths = [str(written)] if there else sorted(map(str, _matching(written)))
    if not paths:
        hint = f"get it first: {spec.obtain}" if spec.obtain else "correct the path, or create the file"
        raise UserError(f"generate.path: there is no file {spec.path}: {hint}")
    return [Place(path, path, _stem(path), 0 if path.lower().endswith(".parquet") else 1) for path in paths]


def _matching(pattern: Path) -> Iterator[Path]:
    root = Path(
        *pattern.parts[: next((i for i, part in enumerate(pattern.parts) if "*" in part or "?" in part), len(pattern.parts))]
    )
    if root == pattern or not root.is_dir():
        return
    yield from (found for found in root.glob(str(pattern.relative_to(root))) if found.is_file())


def located(path: str | None, environment: Mapping[str, str]) -> str | None:
    """Where a file or pattern is: where the spec says, or else below the folders that METAOPT_DATA names. Raises UserError."""
    if path is None or "://" in path or any(True for _ in _matching(Path(path))) or Path(path).is_file():
        return path
    for folder in filter(None, environment.get(VARIABLE, "").split(os.pathsep)):
        root = expanded(folder)
        if not root.is_dir():
            raise UserError(f"{VARIABLE}: {folder!r} is not a folder: expected folders with data, with {os.pathsep} between them")
        if any(root.glob(Path(path).name)):
            return str((root / Path(path).name).absolute())
    return path


def _stem(path: str) -> str:
    name = path.rpartition("/")[2]
    return re.sub(r"(?i)\.(csv|tsv|parquet)(\.gz)?$", "", name)


def digests(spec: TableSettings) -> dict[str, str]:
    """File name → digest of its content, of all files that the table is read from. Raises UserError where they can't be read."""
    named: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for place in places(spec) if spec.path is not None else ():
        name = place.path.rpartition("/")[2]
        seen[name] += 1  # files of one name in several folders are numbered, because where these are doesn't count
        named[f"{name} ({seen[name]})" if seen[name] > 1 else name] = _digest(place.path)
    return named | {f"{split} tasks": _digest(path) for split, path in spec.split.files.items()}


def _digest(path: str) -> str:
    def find() -> str:
        with opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]

    with readable(path):
        if "://" in path:
            return find()
        return content.remembered("table", {path: Path(path).stat()}, find)


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Says which file it was that can't be read, whatever raises."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{path}: a package for such addresses is missing ({error}): install it") from None
    except Exception as error:  # fsspec's backends raise many kinds
        if "://" not in path and not isinstance(error, OSError):
            raise
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: can't be read ({scrubbed(why)}): expected a readable file; check the path and its permissions"
        ) from None


def opened(path: str) -> IO[bytes]:
    if "://" not in path:
        return Path(path).open("rb")
    import fsspec

    file: IO[bytes] = fsspec.open(path, "rb").open()
    return file
