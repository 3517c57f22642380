"""Paths in a spec may begin with `~`, and a path without a meaning is refused in one line."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from metaopt_core.errors import UserError
from metaopt_core.spec.paths import WrittenPath, expanded, real


def test_a_tilde_is_the_users_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/data") == tmp_path / "data"
    assert expanded("data/~") == Path("data/~")


def test_a_user_who_does_not_exist_is_an_error_with_a_remedy() -> None:
    with pytest.raises(UserError, match=r"^no user nosuchuser on this machine: expected a path as in /data, or \./~nosuchuser$"):
        expanded("~nosuchuser/data")


def test_in_a_spec_the_text_is_kept_and_only_checked() -> None:
    paths = TypeAdapter(WrittenPath)
    assert paths.validate_python("~/data") == "~/data"
    with pytest.raises(ValidationError, match=r"expected a path \(no user nosuchuser on this machine\)"):
        paths.validate_python("~nosuchuser/data")


def test_links_are_followed_and_one_to_itself_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert real(tmp_path / "link" / "missing") == tmp_path.resolve() / "target" / "missing"
    assert real(tmp_path / "loop").name == "loop"
