"""What is let through to a server of ours: requests under its own names, from its own pages or from no page, with the login."""

import asyncio
import base64
from typing import Any

import httpx
import pytest

from flows.guard import LOOPBACK, Guard

OWN = "127.0.0.1:4200"


async def _application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"ALLOWALL")]})
    await send({"type": "http.response.body", "body": b"passed"})


def _answer(guard: Guard, method: str = "GET", path: str = "/api/flows", **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=guard)) as client:
            named = {name.replace("_", "-"): value for name, value in ({"host": OWN} | headers).items()}
            return await client.request(method, f"http://server{path}", headers=named)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": f"http://{OWN}"}, 200),
        ({"host": "localhost:14200", "origin": "http://localhost:14200"}, 200),  # through a tunnel
        ({"host": "[::1]:4200", "origin": "http://[::1]:4200"}, 200),
        ({"host": "LOCALHOST:4200", "origin": "http://localhost:4200"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:4200"}, 403),
        ({"host": "127.0.0.1.evil.example:4200"}, 403),
        ({"host": "10.0.0.5:4200"}, 403),
        ({"host": "[::1"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:4200"}, 403),  # is not the page that was opened
        ({"origin": "http://127.0.0.1:8888"}, 403),
        ({"sec_fetch_site": "same-origin", "sec_fetch_dest": "empty"}, 200),
        ({"sec_fetch_site": "none", "sec_fetch_dest": "document"}, 200),
        ({"sec_fetch_site": "cross-site", "sec_fetch_dest": "document"}, 200),  # a link that was followed
        ({"sec_fetch_site": "cross-site", "sec_fetch_dest": "iframe"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_dest": "script"}, 403),
        ({"sec_fetch_site": "same-site", "sec_fetch_dest": "image"}, 403),  # of another port
    ],
)
def test_only_its_own_names_and_pages_reach_the_application(headers: dict[str, str], status: int) -> None:
    for method in ("GET", "POST", "DELETE"):
        followed = headers.get("sec_fetch_site") == "cross-site" and headers["sec_fetch_dest"] == "document"
        expected = 403 if followed and method != "GET" else status
        answer = _answer(Guard(_application), method, **headers)
        assert answer.status_code == expected, method
        assert (answer.text == "passed") == (expected == 200)


def test_an_exposed_server_has_every_address_and_its_names_but_no_others() -> None:
    guard = Guard(_application, LOOPBACK | {"box"}, any_address=True)
    for host in ("10.0.0.5:4200", "box:4200", "[fd00::1]:4200", OWN):
        assert _answer(guard, host=host, origin=f"http://{host}").status_code == 200, host
    assert _answer(guard, host="evil.example:4200").status_code == 403


def test_the_login_is_asked_for_everywhere_but_at_health() -> None:
    guard = Guard(_application, login="metaopt:secret")

    def with_login(login: str, scheme: str = "Basic") -> int:
        return _answer(guard, authorization=f"{scheme} {base64.b64encode(login.encode()).decode()}").status_code

    assert with_login("metaopt:secret") == 200
    for wrong in ("metaopt:", "metaopt:secre", "metaopt:secret\n", "other:secret", "", "metaopt:sécret"):
        assert with_login(wrong) == 401, wrong
    assert with_login("metaopt:secret", "Bearer") == 401
    assert _answer(guard, authorization="Basic *").status_code == 401
    refused = _answer(guard)
    assert (refused.status_code, refused.headers["www-authenticate"][:5]) == (401, "Basic")
    assert _answer(guard, path="/health").status_code == 200
    assert _answer(guard, path="/health/../api").status_code == 401


def test_what_is_closed_is_closed_and_no_other_site_may_frame_a_page() -> None:
    guard = Guard(_application, closed=("/assistant",))
    assert _answer(guard, path="/assistant/config").status_code == 403
    assert _answer(guard).headers.get_list("x-frame-options") == ["SAMEORIGIN"]
    assert _answer(guard, origin="null").headers.get_list("x-frame-options") == ["SAMEORIGIN"]
