"""The login of the servers that `metaopt up` starts: one user and one password, in a file in the home that others can't read."""

import contextlib
import os
import secrets
import stat
from pathlib import Path

from metaopt_core.errors import UserError
from metaopt_core.pipeline.home import Home

USER = "metaopt"


def file(home: Home) -> Path:
    """The file of the login: one line, USER:PASSWORD, which its owner may change."""
    return home.root / "login"


def make(home: Home, given: str | None = None) -> str:
    """The login of this home: the given one from now on, else the existing one, else a new random password. Raises UserError."""
    if given is not None:
        line = _checked(given, "the login that is given")
        file(home).unlink(missing_ok=True)
    else:
        line = f"{USER}:{secrets.token_urlsafe(24)}"
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(file(home), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as new:
            new.write(f"{line}\n")
    return read(home)


def read(home: Home) -> str:
    """The login of this home. Raises UserError if it is unusable or others may read it."""
    path = file(home)
    try:
        others = stat.S_IMODE(path.stat().st_mode) & 0o077
        line = path.read_text(encoding="latin-1").strip()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}): expected the login that `up --password` made") from None
    if others:
        raise UserError(f"{path}: others may read it: expected mode 0600 (chmod 600 {path}), and another password if they did")
    return _checked(line, str(path))


def _checked(line: str, place: str) -> str:
    user, _, password = line.partition(":")
    if not user or not password or not line.isascii() or not line.isprintable() or " " in line:
        raise UserError(f"{place}: expected one line USER:PASSWORD of printable ASCII characters without spaces")
    return line
