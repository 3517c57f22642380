"""Addresses of tracking stores, which must not contain secrets: Prefect, MLflow and every output store a spec in plain text.

Credentials are read from the environment variables of the store's own client, so that we never write, log or show them.
"""

import os
import re
from urllib.parse import unquote, urlsplit

from metaopt_core.errors import UserError

VARIABLE = "MLFLOW_TRACKING_URI"
_DATABASES = ("postgresql", "mysql", "mssql", "sqlite")
_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY")

_OF_MLFLOW = "variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
OF_PREFECT = "variable PREFECT_API_AUTH_STRING"
_DATABASE_MESSAGE = (
    "an address holds no password: for PostgreSQL it goes into the environment variable PGPASSWORD or the file ~/.pgpass, for "
    "other databases into an option file of their client; or name an MLflow server in front of the database"
)
_NO_ADDRESS = "expected the address of a server, as in http://127.0.0.1:5000"

_QUERY_KEY = r"[\w.-]*(?:passw|pwd|token|secret|credential|auth|signature|api.?key|access.?key)[\w.-]*="
_SECRET_PATTERNS = (
    (re.compile(r"://(?!/)[^\s'\"]*@"), "://"),  # three slashes begin a path, where @ has no meaning
    (re.compile(r"\b[^\s'\"/@:]+:[^\s'\"/@]+@(?=\w)"), ""),
    (re.compile(r"(?i)\b(basic|bearer)\s+[\w.~+/-]{6,}=*"), r"\1 ***"),
    (re.compile(rf"(?i)([?&;#]{_QUERY_KEY})[^\s&;#'\"]*"), r"\1***"),
)

PATTERN = (
    r"^(?!https?:.*[?#])"
    r"(?!(?!(sqlite|postgresql|mysql|mssql)[\w+]*://).*@)"
    r"(?!\w[\w+]*://[^/@]*:[^/]*@)"  # a database's address may contain a user name
    r"(?!.*[?&;#][\w.-]*(passw|pwd|token|secret)[\w.-]*=).*$"
)
"""The same check as a JSON Schema, with which Prefect's server checks a form before storing it; it catches fewer cases."""


def problem(address: str, instead: str = _OF_MLFLOW) -> str | None:
    """What is wrong with the address of a server or a tracking store, without quoting it; none if nothing is.

    instead: where the server's credentials go.
    """
    in_server = (
        "an address holds no credentials, nor anything after ? or #: expected http://HOST:PORT; what the server asks for goes into "
        f"the environment {instead}"
    )
    plain = unquote(address)
    try:
        scheme, place = urlsplit(plain).scheme, urlsplit(plain).netloc
    except ValueError:  # such as http://[bad
        return _NO_ADDRESS
    if scheme.partition("+")[0] in _DATABASES and plain.startswith(f"{scheme}://"):
        password = ":" in place.rpartition("@")[0]
        return _DATABASE_MESSAGE if password or re.search(rf"(?i)[?&;#]{_QUERY_KEY}", plain) else None
    if scheme in {"http", "https"}:
        return in_server if re.search("[@?#]", plain) else (None if place else _NO_ADDRESS)
    return in_server if "@" in plain or re.search(rf"(?i)[?&;#]{_QUERY_KEY}", plain) else None


def tracking_address(configured: str | None) -> str | None:
    """The address that a spec names, else the one that the environment names; none means the embedded store.

    Raises UserError if the environment's contains credentials; a spec with such an address is refused earlier.
    """
    if configured:
        return configured
    named = os.environ.get(VARIABLE)
    if named and (wrong := problem(named)):
        raise UserError(f"environment variable {VARIABLE}: {wrong}")
    return named or None


def scrubbed(text: str) -> str:
    """Foreign text, such as a library's error, without known credentials and anything that looks like credentials."""
    for variable in _SECRETS:
        if len(secret := os.environ.get(variable, "")) > 3:  # a shorter one occurs in many words
            text = text.replace(secret, "***")
    for pattern, instead in _SECRET_PATTERNS:
        text = pattern.sub(instead, text)
    return text
