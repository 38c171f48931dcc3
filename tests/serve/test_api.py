"""Every route: what it answers, and that it is what the OpenAPI document says."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from idlepush.engine.observations import State, StateChanged
from idlepush.errors import FailureClass, StoreError
from idlepush.imap.types import MailboxName
from idlepush.serve.api import routed
from idlepush.serve.behind import Behind
from idlepush.serve.records import (
    Account,
    AccountPage,
    EventPage,
    HealthPage,
    MailboxPage,
    MessagePage,
    Probe,
    ProblemDocument,
    Reloaded,
    WholeMessage,
)
from idlepush.store.base import Store
from idlepush.store.memory import MemoryStore
from tests.serve.serving import Served, watching
from tests.store.making import Clock, begin, changes, message, row

ARCHIVE = MailboxName.from_text("Archive/Ä")


async def filled(store: Store) -> Served:
    """Alice has five messages in two mailboxes, bob is parked and has none."""
    generation = await begin(store)
    await store.commit(changes(generation, new=tuple(message(uid) for uid in (1, 2, 3))))
    archive = await begin(store, "alice", ARCHIVE, 9)
    await store.commit(changes(archive, "alice", ARCHIVE, new=tuple(message(uid) for uid in (10, 11))))
    parked = StateChanged(
        account="bob", state=State.PARKED, failure_class=FailureClass.AUTHENTICATION, reason="Login failed."
    )
    return Served.of(store, watching("alice"), parked)


def is_problem(answer: httpx.Response, status: int) -> ProblemDocument:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = ProblemDocument.model_validate_json(answer.content)
    assert document.status == status
    return document


# Probes


async def test_it_is_alive_and_ready_whatever_the_servers_say(store: Store) -> None:
    async with (await filled(store)).client() as client:
        for path in ("/livez", "/readyz"):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert Probe.model_validate_json(answer.content).status == "ok"
            assert (await client.head(path)).status_code == 200


async def test_it_is_not_ready_before_every_loop_has_started_and_says_why(memory: Store) -> None:
    served = await filled(memory)
    served.accounts.lack = "3 accounts have not started"
    async with served.client() as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {"status": "unavailable", "reason": "3 accounts have not started"}
        assert (await client.get("/livez")).status_code == 200


class Unreadable(MemoryStore):
    """A store whose disk is broken."""

    async def position(self) -> int:
        raise StoreError("the database disk image is malformed")

    async def events(self, after: int = 0, *, limit: int = 1000) -> Any:
        raise StoreError("the database disk image is malformed")


async def test_a_store_that_cannot_be_read_is_unreadiness_and_a_problem_of_503() -> None:
    async with Served.of(Unreadable(clock=Clock())).client() as client:
        assert "malformed" in (await client.get("/readyz")).json()["reason"]
        assert "malformed" in is_problem(await client.get("/v1/events"), 503).detail


async def test_metrics_come_in_the_format_that_is_asked_for(memory: Store) -> None:
    async with (await filled(memory)).client() as client:
        plain = await client.get("/metrics")
        assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert {family.name for family in parse_text(plain.text)} >= {"idlepush_things"}
        asked = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
        metrics = await client.get("/metrics", headers=asked)
        assert metrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert {family.name for family in parse_openmetrics(metrics.text)} >= {"idlepush_things"}  # type: ignore[no-untyped-call]


# Accounts


async def test_accounts_show_what_status_prints_with_the_counts_of_the_store(store: Store) -> None:
    async with (await filled(store)).client() as client:
        answer = await client.get("/v1/accounts")
        AccountPage.model_validate_json(answer.content)
        alice, bob = answer.json()["items"]
        assert (alice["account"], alice["state"], alice["mailboxes"], alice["messages"]) == ("alice", "watching", 2, 5)
        assert (bob["state"], bob["class"], bob["reason"]) == ("parked", "authentication", "Login failed.")
        assert (bob["health"], bob["messages"], bob["running"]) == ("critical", 0, True)
        assert answer.json()["next"] is None
        one = await client.get("/v1/accounts/alice")
        Account.model_validate_json(one.content)
        assert one.json() == alice


async def test_accounts_come_in_pages(memory: Store) -> None:
    served = Served.of(memory, *(watching(name) for name in ("carol", "alice", "bob")))
    async with served.client() as client:
        first = (await client.get("/v1/accounts", params={"limit": 2})).json()
        assert [one["account"] for one in first["items"]] == ["alice", "bob"]
        last = (await client.get("/v1/accounts", params={"limit": 2, "after": first["next"]})).json()
        assert [one["account"] for one in last["items"]] == ["carol"]
        assert last["next"] is None


async def test_mailboxes_show_how_they_stand(store: Store) -> None:
    async with (await filled(store)).client() as client:
        answer = await client.get("/v1/accounts/alice/mailboxes")
        MailboxPage.model_validate_json(answer.content)
        assert [(one["mailbox"], one["state"], one["messages"]) for one in answer.json()["items"]] == [
            ("Archive/Ä", "ok", 2),
            ("INBOX", "ok", 3),
        ]
        cut = (await client.get("/v1/accounts/alice/mailboxes", params={"limit": 1})).json()
        assert cut["next"] == "Archive/Ä"


@pytest.mark.parametrize("order", ["wake", "pause", "resume"])
async def test_an_order_is_told_and_answered_with_the_account(memory: Store, order: str) -> None:
    served = await filled(memory)
    async with served.client() as client:
        answer = await client.post(f"/v1/accounts/alice/{order}")
        assert answer.status_code == 202
        Account.model_validate_json(answer.content)
        assert served.accounts.told == [(order, "alice")]
        assert answer.json()["state"] == {"wake": "watching", "pause": "paused", "resume": "starting"}[order]
        is_problem(await client.post(f"/v1/accounts/nobody/{order}"), 404)
        assert len(served.accounts.told) == 1
        assert is_problem(await client.get(f"/v1/accounts/alice/{order}"), 405)


async def test_a_repair_names_its_mailbox_and_what_is_damaged(memory: Store) -> None:
    served = await filled(memory)
    async with served.client() as client:
        path = "/v1/accounts/alice/repair"
        answer = await client.post(path, params={"mailbox": "Entwürfe/ä b", "damaged": "3,1:2"})
        assert answer.status_code == 202
        Account.model_validate_json(answer.content)
        assert (await client.post(path, params={"mailbox": "INBOX"})).status_code == 202
        assert served.accounts.told == [("repair Entwürfe/ä b 1:3", "alice"), ("repair INBOX ", "alice")]
        is_problem(await client.post(path, params={"mailbox": "INBOX", "damaged": "*"}), 400)
        is_problem(await client.post(path), 422)
        is_problem(await client.post("/v1/accounts/nobody/repair", params={"mailbox": "INBOX"}), 404)
        await client.post("/v1/accounts/alice/pause")
        is_problem(await client.post(path, params={"mailbox": "INBOX"}), 409)


async def test_only_an_account_that_is_configured_no_more_is_purged(memory: Store) -> None:
    served = await filled(memory)
    async with served.client() as client:
        assert "still" in is_problem(await client.post("/v1/accounts/alice/purge"), 409).detail
        served.accounts.configured.clear()
        answer = await client.post("/v1/accounts/alice/purge")
        assert answer.status_code == 202
        Reloaded.model_validate_json(answer.content)


async def test_a_reload_that_finds_a_mistake_says_which(memory: Store) -> None:
    served = await filled(memory)
    async with served.client() as client:
        Reloaded.model_validate_json((await client.post("/v1/reload")).content)
        served.accounts.mistake = "idlepush.toml:3: accounts.bob.hots: unknown key; did you mean 'host'?"
        assert "did you mean 'host'?" in is_problem(await client.post("/v1/reload"), 409).detail
        is_problem(await client.post("/v1/accounts/alice/purge"), 409)


async def test_health_shows_the_worst_and_each(memory: Store) -> None:
    async with (await filled(memory)).client() as client:
        answer = await client.get("/v1/health")
        HealthPage.model_validate_json(answer.content)
        assert (answer.json()["health"], answer.json()["score"]) == ("critical", 0)
        alice, bob = answer.json()["items"]
        assert alice == {"account": "alice", "score": 100, "health": "healthy", "reasons": []}
        assert bob["reasons"] == ["parked: Login failed."]


# Messages


async def pages(client: httpx.AsyncClient, path: str, **asked: str | int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        answer = (await client.get(path, params=asked)).json()
        found += answer["items"]
        if answer["next"] is None:
            return found
        asked["after"] = answer["next"]


async def test_messages_come_in_pages_by_account_mailbox_and_uid(store: Store) -> None:
    async with (await filled(store)).client() as client:
        for limit in (1, 2, 5, 1000):
            listed = await pages(client, "/v1/messages", account="alice", limit=limit)
            assert [(one["mailbox"], one["uid"]) for one in listed] == [
                ("Archive/Ä", 10),
                ("Archive/Ä", 11),
                ("INBOX", 1),
                ("INBOX", 2),
                ("INBOX", 3),
            ]
        MessagePage.model_validate_json((await client.get("/v1/messages")).content)
        inbox = await pages(client, "/v1/messages", mailbox="inbox", limit=2)
        assert [one["uid"] for one in inbox] == [1, 2, 3]
        newest = await pages(client, "/v1/messages", newest="true", limit=2)
        assert [one["uid"] for one in newest] == [11, 10, 3, 2, 1]
        assert await pages(client, "/v1/messages", account="bob") == []
        assert await pages(client, "/v1/messages", expunged="true") == []
        is_problem(await client.get("/v1/messages", params={"account": "nobody"}), 404)
        is_problem(await client.get("/v1/messages", params={"after": "mzzz"}), 400)


async def test_a_search_comes_in_pages_newest_first(store: Store) -> None:
    served = await filled(store)
    await store.index()
    async with served.client() as client:
        for limit in (1, 2, 1000):
            found = await pages(client, "/v1/messages", q="hello -subject:3", limit=limit)
            assert [one["uid"] for one in found] == [11, 10, 2, 1]
        assert [one["uid"] for one in await pages(client, "/v1/messages", q="hello", mailbox="inbox")] == [3, 2, 1]
        assert len(await pages(client, "/v1/messages", q="")) == 5
        MessagePage.model_validate_json((await client.get("/v1/messages", params={"q": "hello"})).content)
        for typed in ('"', "NEAR(a", "a:b:*", "\x00", "-"):
            assert await pages(client, "/v1/messages", q=typed) == []
        wrong = is_problem(await client.get("/v1/messages", params={"q": "before:soon"}), 400)
        assert "q: before:soon names no day" in wrong.model_dump_json()
        is_problem(await client.get("/v1/messages", params={"q": "a", "expunged": "true"}), 400)
        is_problem(await client.get("/v1/messages", params={"q": "x" * 2001}), 422)


async def test_a_message_is_found_by_its_id_and_streamed_byte_for_byte(store: Store) -> None:
    served = await filled(store)
    body = b"Subject: \xff\x00 raw\r\n\r\n" + bytes(range(256)) * 3000
    generation = await begin(store, "alice", MailboxName.from_text("Raw"))
    await store.commit(
        changes(generation, "alice", MailboxName.from_text("Raw"), new=(message(7, body, size=len(body)),))
    )
    found = await row(store, 7, "alice", MailboxName.from_text("Raw"))
    async with served.client() as client:
        shown = await client.get(f"/v1/messages/{found.id}")
        WholeMessage.model_validate_json(shown.content)
        assert shown.json() == {**found.record(), "references": []}
        raw = await client.get(f"/v1/messages/{found.id}/raw")
        assert raw.content == body
        assert raw.headers["content-type"] == "message/rfc822"
        assert raw.headers["content-disposition"] == f'attachment; filename="{found.id}.eml"'
        assert raw.headers["x-content-type-options"] == "nosniff"


async def test_a_body_that_is_not_whole_is_not_served(store: Store) -> None:
    served = await filled(store)
    name = MailboxName.from_text("Parts")
    generation = await begin(store, "alice", name)
    half = message(1, b"half of it", size=1000, complete=False)
    await store.commit(changes(generation, "alice", name, new=(half,)))
    found = await row(store, 1, "alice", name)
    async with served.client() as client:
        assert (await client.get(f"/v1/messages/{found.id}")).json()["complete"] is False
        is_problem(await client.get(f"/v1/messages/{found.id}/raw"), 404)


@pytest.mark.parametrize("id", ["m0zz", "nonsense", "m1%00", "%2e%2e%2fetc", "M1", "m-1", "é"])
async def test_what_is_no_id_is_not_found(store: Store, id: str) -> None:
    async with (await filled(store)).client() as client:
        for path in (f"/v1/messages/{id}", f"/v1/messages/{id}/raw"):
            is_problem(await client.get(path), 404)


# Events


async def test_events_come_in_pages_by_position(store: Store) -> None:
    async with (await filled(store)).client() as client:
        whole = (await client.get("/v1/events", params={"limit": 1000})).json()["items"]
        EventPage.model_validate_json((await client.get("/v1/events")).content)
        assert [one["position"] for one in whole] == list(range(1, len(whole) + 1))
        assert await pages(client, "/v1/events", limit=2) == whole
        behind = (await client.get("/v1/events", params={"after": whole[-2]["position"]})).json()
        assert behind == {"items": whole[-1:], "next": None}
        assert (await client.get("/v1/events", params={"after": 2**63 - 1})).json()["items"] == []


# Problems


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("/v1/events?limit=0", "limit"),
        ("/v1/events?limit=1001", "limit"),
        ("/v1/events?after=-1", "after"),
        ("/v1/events?after=99999999999999999999", "after"),
        ("/v1/events?after=%ff%00", "after"),
        ("/v1/messages?limit=many", "limit"),
        ("/v1/messages?newest=perhaps", "newest"),
        ("/v1/accounts?limit=2000", "limit"),
        (f"/v1/messages?mailbox={'x' * 2000}", "mailbox"),
    ],
)
async def test_a_parameter_that_is_wrong_is_named_and_its_value_not_repeated(
    memory: Store, asked: str, name: str
) -> None:
    async with Served.of(memory).client() as client:
        answer = await client.get(asked)
        assert name in is_problem(answer, 422).detail
        value = asked.partition("=")[2]
        assert value not in answer.text or value == "0"


async def test_every_error_is_a_problem_document(memory: Store) -> None:
    async with (await filled(memory)).client() as client:
        is_problem(await client.get("/v1/nothing"), 404)
        is_problem(await client.get("/v1/accounts/"), 404)
        is_problem(await client.get("/v1/accounts/nobody"), 404)
        wrong = await client.post("/v1/messages")
        assert wrong.headers["allow"] == "GET"
        is_problem(wrong, 405)
        is_problem(await client.request("OPTIONS", "/v1/messages"), 405)


class Buggy(MemoryStore):
    async def events(self, after: int = 0, *, limit: int = 1000) -> Any:
        raise RuntimeError(" ".join(["nobody", "may", "see"]))


async def test_a_bug_is_answered_with_500_and_nothing_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    async with Served.of(Buggy(clock=Clock())).client() as client:
        document = is_problem(await client.get("/v1/events"), 500)
        assert "nobody may see" not in document.model_dump_json()
    logged = capsys.readouterr().out
    assert "http.bug" in logged and "RuntimeError" in logged and "nobody may see" not in logged


# The document


async def document() -> dict[str, Any]:
    served = Served.of(MemoryStore(clock=Clock()))
    return routed(Behind(reader=served.store, control=served.accounts, metrics=served.registry)).openapi()


def references(of: object) -> Iterator[str]:
    match of:
        case dict():
            for key, value in of.items():
                if key == "$ref":
                    yield value
                yield from references(value)
        case list():
            for value in of:
                yield from references(value)


async def test_the_openapi_document_is_whole() -> None:
    written = await document()
    assert written["openapi"].startswith("3.1")
    ids = [one["operationId"] for path in written["paths"].values() for one in path.values()]
    assert len(ids) == len(set(ids))
    for reference in references(written):
        at: Any = written
        for key in reference.removeprefix("#/").split("/"):
            at = at[key]
    for path, operations in written["paths"].items():
        for operation in operations.values():
            names = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
            assert names == {part.strip("{}") for part in path.split("/") if part.startswith("{")}
            assert operation["description"] and operation["responses"]
            problems = [status for status in operation["responses"] if status >= "4" and path[1:3] == "v1"]
            for status in problems:
                assert list(operation["responses"][status]["content"]) == ["application/problem+json"]


async def test_the_openapi_document_has_every_path_of_the_contract() -> None:
    assert (await document())["paths"].keys() == {
        "/livez",
        "/readyz",
        "/metrics",
        "/v1/accounts",
        "/v1/accounts/{name}",
        "/v1/accounts/{name}/mailboxes",
        "/v1/accounts/{name}/wake",
        "/v1/accounts/{name}/repair",
        "/v1/accounts/{name}/pause",
        "/v1/accounts/{name}/resume",
        "/v1/accounts/{name}/purge",
        "/v1/reload",
        "/v1/messages",
        "/v1/messages/{id}",
        "/v1/messages/{id}/raw",
        "/v1/events",
        "/v1/events/stream",
        "/v1/health",
    }


async def test_the_docs_list_every_path_without_a_script_or_anything_from_elsewhere(memory: Store) -> None:
    async with Served.of(memory).client() as client:
        answer = await client.get("/docs")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
        assert "<script" not in answer.text and "//" not in answer.text.replace("<!doctype", "")
        for path in (await client.get("/openapi.json")).json()["paths"]:
            assert path in answer.text
        assert (await client.get("/")).headers["location"] == "/docs"
