"""Who may use a server that we start: ASGI middleware in front of Prefect's and MLflow's applications.

A browser sends requests to loopback for any page that it shows, and a page can make its own name resolve to 127.0.0.1 (DNS
rebinding). Without a check, any web page could start flow runs here and read their results. So a request must name one of the
server's own hosts, and if it comes from a page, that page must be the server's own. Reads are checked like writes.
"""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_HEADERS = [(b"x-frame-options", b"SAMEORIGIN"), (b"x-content-type-options", b"nosniff")]


class Guard:
    """An application behind the checks.

    hosts: names by which the server may be addressed, with any port, because a tunnel may change it.
    any_address: allow all IP addresses, too, which no name service can redirect.
    login: USER:PASSWORD that basic authentication has to carry, everywhere except at /health.
    closed: prefixes of paths that are always refused.
    """

    def __init__(
        self,
        app: Any,
        hosts: Collection[str] = LOOPBACK,
        *,
        any_address: bool = False,
        login: str | None = None,
        closed: tuple[str, ...] = (),
    ):
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._any_address = any_address
        self._login = login
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted, so that the client gets 403
        else:
            await _refuse(send, *refusal)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the reason with which a request is refused."""
        host = _only(scope, b"host")
        if host is None or not self._is_own(_hostname(host)):
            return 403, "This server answers only requests for its own address."
        origins = [value.lower() for value in _values(scope, b"origin")]
        if any(origin not in {f"http://{host.lower()}", f"https://{host.lower()}"} for origin in origins):
            return 403, "This server answers only its own pages, and this request comes from another site's."
        if _is_of_another_site(scope):
            return 403, "This server answers only its own pages, and another site's page asks for a part of one."
        path = scope["path"]
        if path.startswith(self._closed):
            return 403, "metaopt does not offer this."
        if self._login is not None and path != "/health" and not self._logged_in(scope, self._login):
            return 401, "A user and a password are required."
        return None

    def _is_own(self, hostname: str) -> bool:
        return hostname in self._hosts or (self._any_address and _is_address(hostname))

    def _logged_in(self, scope: Scope, login: str) -> bool:
        scheme, _, credentials = (_only(scope, b"authorization") or "").partition(" ")
        try:
            given = base64.b64decode(credentials, validate=True)
        except (binascii.Error, ValueError):
            return False
        return scheme.lower() == "basic" and hmac.compare_digest(given, login.encode())


def _is_of_another_site(scope: Scope) -> bool:
    """Whether a browser says that the request comes from another site's page, other than by a link to one of ours."""
    foreign = not set(_values(scope, b"sec-fetch-site")) <= {"same-origin", "none"}
    followed = scope["type"] == "http" and scope["method"] in {"GET", "HEAD"} and _values(scope, b"sec-fetch-dest") == ["document"]
    return foreign and not followed


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(hostname: str) -> bool:
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return True


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in scope["headers"] if key == name]


def _only(scope: Scope, name: bytes) -> str | None:
    """A header's value, if it is there exactly once."""
    values = _values(scope, name)
    return values[0] if len(values) == 1 else None


def _with_headers(send: Any) -> Any:
    """Forbid other sites to show these pages in a frame, where clicks could be hijacked."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            names = {name for name, _ in _HEADERS}
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in names]
            message = {**message, "headers": kept + _HEADERS}
        await send(message)

    return sending


async def _refuse(send: Any, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="metaopt", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})
