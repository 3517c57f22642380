"""A digest of files is of their content alone, and is read again only if a file looks different."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from metaopt_core.distributions import content

OLD = 1_000_000_000.0  # a time long past, in seconds since 1970


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(content, "_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr("metaopt_core.distributions.content.time.time", lambda: OLD * 10)  # so that every file is settled
    path = tmp_path / "data.csv"
    path.write_text("a,b\n")
    return path


def counted() -> tuple[Callable[[], str], list[None]]:
    """A function that reads the files, and how often it was called."""
    calls: list[None] = []

    def find() -> str:
        calls.append(None)
        return content.digest([("data.csv", b"a,b\n")])

    return find, calls


def test_the_order_of_files_does_not_matter_and_names_and_contents_do() -> None:
    one, other = ("a", b"1"), ("b", b"2")
    assert content.digest([one, other]) == content.digest([other, one])
    assert content.digest([("a", b"2"), ("b", b"1")]) != content.digest([one, other])
    assert content.digest([("c", b"1"), other]) != content.digest([one, other])


def test_files_that_look_the_same_are_read_once(file: Path) -> None:
    find, calls = counted()
    found = [content.remembered("table", {str(file): file.stat()}, find) for _ in range(2)]
    assert found[0] == found[1]
    assert len(calls) == 1


@pytest.mark.parametrize("change", [lambda path: os.utime(path, (OLD, OLD)), lambda path: path.write_text("a,b\n1,2\n")])
def test_a_file_that_looks_different_is_read_again(file: Path, change: Callable[[Path], None]) -> None:
    find, calls = counted()
    content.remembered("table", {str(file): file.stat()}, find)
    change(file)
    content.remembered("table", {str(file): file.stat()}, find)
    assert len(calls) == 2


def test_another_use_of_the_same_files_has_a_digest_of_its_own(file: Path) -> None:
    find, calls = counted()
    for use in ("table", "pictures"):
        content.remembered(use, {str(file): file.stat()}, find)
    assert len(calls) == 2


def test_a_file_that_has_just_changed_is_not_remembered(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaopt_core.distributions.content.time.time", lambda: file.stat().st_mtime + 1)
    find, calls = counted()
    for _ in range(2):
        content.remembered("table", {str(file): file.stat()}, find)
    assert len(calls) == 2


def test_a_damaged_cache_is_ignored(file: Path, tmp_path: Path) -> None:
    find, calls = counted()
    found = content.remembered("table", {str(file): file.stat()}, find)
    [cached] = (tmp_path / "cache").iterdir()
    cached.write_text("?")
    assert content.remembered("table", {str(file): file.stat()}, find) == found
    assert len(calls) == 2
