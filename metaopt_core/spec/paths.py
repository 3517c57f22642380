"""Paths as people write them: in a pipelines file, in the environment, on the command line."""

from pathlib import Path

from metaopt_core.errors import UserError


def expanded(path: str) -> Path:
    """The path with `~` or `~user` at its beginning resolved. Raises UserError where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0]
        raise UserError(f"no user {user.removeprefix('~')} on this machine: expected a path as in /data, or ./{user}") from None
