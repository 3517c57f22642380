"""Paths as people write them: in a pipelines file, in the environment, on the command line."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from metaopt_core.errors import UserError


def expanded(path: str) -> Path:
    """The path with a leading `~` or `~user` resolved. Raises UserError if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0]
        raise UserError(f"no user {user.removeprefix('~')} on this machine: expected a path as in /data, or ./{user}") from None


def real(path: Path) -> Path:
    """The path without links, as far as it exists. Unlike Path.resolve it raises no RuntimeError for a link to itself."""
    return Path(os.path.realpath(path))


def _path(text: str) -> str:
    try:
        expanded(text)
    except UserError as error:
        raise PydanticCustomError("path", "expected a path ({why})", {"why": str(error).partition(":")[0]}) from None
    return text


WrittenPath = Annotated[str, AfterValidator(_path)]
"""A path in a spec, which may begin with `~`; relative ones are relative to the file that contains them."""
