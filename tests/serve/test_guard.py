"""Who is answered: tokens (f1), hosts and origins (f3), bodies (f4), and what every answer carries."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from idlepush.engine.credentials import PlainSecret, Secret
from idlepush.serve.api import routed
from idlepush.serve.behind import Behind
from idlepush.serve.settings import HttpSettings
from idlepush.store.base import Store
from tests.serve.serving import BEARER, TOKEN, Served, watching
from tests.serve.test_api import filled, is_problem

OPEN = {"/livez", "/readyz"}


def every_path() -> list[tuple[str, str]]:
    """Method and path of each route, from what the application itself says."""
    served = Served.of(NotImplemented)
    app = routed(Behind(reader=NotImplemented, control=served.accounts, metrics=served.registry))
    listed = [
        (method.upper(), re.sub(r"\{.*?\}", "alice", path))
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    ]
    return [*listed, ("GET", "/docs"), ("GET", "/"), ("GET", "/openapi.json"), ("GET", "/v1/nothing")]


@pytest.fixture
async def guarded(memory: Store) -> AsyncIterator[httpx.AsyncClient]:
    served = await filled(memory)
    served.token = TOKEN
    async with served.client() as client:
        yield client


WRONG: dict[str, dict[bytes, bytes]] = {
    "none": {},
    "another": {b"Authorization": b"Bearer tok-anotherOne"},
    "cut short": {b"Authorization": f"Bearer {TOKEN[:-1]}".encode()},
    "too long": {b"Authorization": f"Bearer {TOKEN}x".encode()},
    "empty": {b"Authorization": b"Bearer "},
    "bare": {b"Authorization": TOKEN.encode()},
    "basic": {b"Authorization": f"Basic {TOKEN}".encode()},
    "beyond ASCII": {b"Authorization": b"Bearer tok-\xe4"},
    "a cookie": {b"Cookie": f"token={TOKEN}".encode()},
    "another header": {b"X-Api-Key": TOKEN.encode()},
}


@pytest.mark.parametrize("given", WRONG)
@pytest.mark.parametrize(("method", "path"), every_path())
async def test_without_the_token_every_path_but_the_probes_is_401(
    guarded: httpx.AsyncClient, method: str, path: str, given: str
) -> None:
    answer = await guarded.request(method, path, headers=WRONG[given])
    if path in OPEN:
        assert answer.status_code == 200
        return
    is_problem(answer, 401)
    assert answer.headers["www-authenticate"].startswith('Bearer realm="idlepush"')
    assert TOKEN not in answer.text and "anotherOne" not in answer.text


@pytest.mark.parametrize("key", ["token", "access_token", "authorization", "api_key"])
async def test_a_token_in_the_url_is_no_token(guarded: httpx.AsyncClient, key: str) -> None:
    is_problem(await guarded.get("/v1/accounts", params={key: TOKEN}), 401)


async def test_two_authorizations_are_none(guarded: httpx.AsyncClient) -> None:
    twice = httpx.Headers([("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")])
    is_problem(await guarded.get("/v1/accounts", headers=twice), 401)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_with_the_token_every_route_answers(guarded: httpx.AsyncClient, scheme: str) -> None:
    for path in ("/v1/accounts", "/v1/messages", "/v1/events", "/v1/health", "/metrics", "/docs", "/openapi.json"):
        answer = await guarded.get(path, headers={"Authorization": f"{scheme} {TOKEN}"})
        assert answer.status_code == 200, path


async def test_a_token_that_was_changed_counts_at_once(memory: Store) -> None:
    served = await filled(memory)
    served.token = TOKEN
    async with served.client() as client:
        assert (await client.get("/v1/health", headers=BEARER)).status_code == 200
        served.token = "another"
        assert (await client.get("/v1/health", headers=BEARER)).status_code == 401


# Hosts


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("127.0.0.1:8143", True),
        ("127.0.0.1", True),
        ("127.0.0.9:1", True),
        ("localhost:8143", True),
        ("LOCALHOST", True),
        ("localhost.:8143", True),
        ("[::1]:8143", True),
        ("evil.example", False),
        ("evil.example:8143", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example@127.0.0.1", False),
        ("127.0.0.1:8143@evil.example", False),
        ("192.168.1.5:8143", False),
        ("0.0.0.0:8143", False),
        ("[::]", False),
        ("", False),
        ("127.0.0.1:", False),
        ("localhost, evil.example", False),
    ],
)
async def test_on_loopback_only_loopbacks_names_are_answered(memory: Store, host: str, is_known: bool) -> None:
    async with (await filled(memory)).client() as client:
        for path in ("/livez", "/v1/accounts"):
            answer = await client.get(path, headers={"Host": host})
            assert answer.status_code == (200 if is_known else 421), path


async def test_the_token_does_not_open_loopback_to_another_name(guarded: httpx.AsyncClient) -> None:
    is_problem(await guarded.get("/v1/accounts", headers={**BEARER, "Host": "evil.example"}), 421)


@pytest.mark.parametrize(
    ("listen", "host", "token", "status"),
    [
        ("0.0.0.0:8143", "idlepush:8143", True, 200),
        ("0.0.0.0:8143", "idlepush:8143", False, 421),
        ("0.0.0.0:8143", "192.168.1.5:8143", False, 401),
        ("mail.lan:8143", "MAIL.lan:8143", False, 401),
        ("mail.lan:8143", "mail.lan:8143", True, 200),
        ("unix:/run/idlepush/http.sock", "localhost", True, 200),
        ("unix:/run/idlepush/http.sock", "evil.example", True, 421),
    ],
)
async def test_elsewhere_who_has_the_token_may_use_any_name(
    memory: Store, listen: str, host: str, token: bool, status: int
) -> None:
    served = await filled(memory)
    served.token = TOKEN
    served.settings = HttpSettings(listen=listen, token=PlainSecret(text=Secret(TOKEN)))
    async with served.client() as client:
        answer = await client.get("/v1/accounts", headers={"Host": host} | (BEARER if token else {}))
        assert answer.status_code == status


# Origins


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1:9999",
        "http://localhost:8143",
        "http://127.0.0.1:8143.evil.example",
        "",
    ],
)
async def test_another_sites_page_changes_and_reads_nothing(memory: Store, origin: str) -> None:
    served = await filled(memory)
    async with served.client() as client:
        for method, path in (("POST", "/v1/accounts/alice/pause"), ("GET", "/v1/events/stream"), ("GET", "/livez")):
            answer = await client.request(method, path, headers={"Origin": origin})
            is_problem(answer, 403)
            assert not any(name.startswith("access-control-") for name in answer.headers)
    assert served.accounts.told == []


async def test_the_services_own_page_may(memory: Store) -> None:
    served = await filled(memory)
    async with served.client() as client:
        own = {"Origin": "http://127.0.0.1:8143"}
        assert (await client.post("/v1/accounts/alice/wake", headers=own)).status_code == 202


async def test_no_answer_allows_another_origin(memory: Store) -> None:
    async with (await filled(memory)).client() as client:
        asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        answer = await client.request("OPTIONS", "/v1/accounts/alice/wake", headers=asked)
        assert answer.status_code == 403
        assert not any(name.startswith("access-control-") for name in answer.headers)


# Bodies


async def test_a_large_body_is_refused_before_it_is_read(memory: Store) -> None:
    served = await filled(memory)
    async with served.client() as client:
        for length in ("65537", "1073741824", "9" * 30, "many"):
            answer = await client.post("/v1/accounts/alice/wake", headers={"Content-Length": length})
            is_problem(answer, 413)

        async def endless() -> AsyncIterator[bytes]:
            yield b"x"

        is_problem(await client.post("/v1/accounts/alice/wake", content=endless()), 411)
        assert served.accounts.told == []
        assert (await client.post("/v1/accounts/alice/wake", content=b"{}")).status_code == 202
        assert (await client.post("/v1/accounts/alice/wake", content=b"[" * 60_000)).status_code == 202


# Answers


async def test_every_answer_says_that_nothing_may_be_run_sniffed_framed_or_kept(memory: Store) -> None:
    served = Served.of(memory, watching("alice"))
    async with served.client() as client:
        for path in ("/livez", "/metrics", "/v1/accounts", "/docs", "/v1/nothing", "/v1/events?limit=0"):
            headers = (await client.get(path)).headers
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["cache-control"] == "no-store"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cross-origin-resource-policy"] == "same-origin"
