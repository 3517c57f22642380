"""The file that holds the login of the servers: for its owner alone, stable, and refused where it can't protect anything."""

from pathlib import Path

import pytest

from flows import login
from metaopt_core.errors import UserError
from metaopt_core.pipeline.home import Home


def test_it_is_made_once_with_a_random_password_that_others_can_not_read(tmp_path: Path) -> None:
    made = login.make(Home(tmp_path))
    user, _, password = made.partition(":")
    assert user == "metaopt"
    assert len(password) >= 32
    assert login.file(Home(tmp_path)).stat().st_mode & 0o777 == 0o600
    assert login.make(Home(tmp_path)) == login.read(Home(tmp_path)) == made
    assert login.make(Home(tmp_path), "me:chosen") == login.read(Home(tmp_path)) == "me:chosen"
    assert login.file(Home(tmp_path)).stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    login.make(Home(tmp_path))
    login.file(Home(tmp_path)).chmod(0o640)
    with pytest.raises(UserError, match=r"others may read it.*chmod 600"):
        login.read(Home(tmp_path))


@pytest.mark.parametrize("text", ["", "secret", ":secret", "me:", "me:a b", "me:a\nme:b", "me:\u00e9", "me:a\0"])
def test_what_is_no_login_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    there = login.make(Home(tmp_path))
    with pytest.raises(UserError, match="expected one line USER:PASSWORD") as refused:
        login.make(Home(tmp_path), text)
    assert "secret" not in str(refused.value)
    assert login.read(Home(tmp_path)) == there
    login.file(Home(tmp_path)).write_text(text)
    with pytest.raises(UserError, match="expected one line USER:PASSWORD") as refused:
        login.read(Home(tmp_path))
    assert "secret" not in str(refused.value)


def test_a_login_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="up --password"):
        login.read(Home(tmp_path))
