"""What is mirrored by its header is known by its structure, too, and never lost for it."""

from typing import Any

import anyio
import pytest

from idlepush.store.base import MessageRow
from idlepush.sync.query import read_query
from tests.engine.rig import Rig, mail
from tests.peers.fake import FakeImap
from tests.peers.virtual import virtual_time

PDF = (
    b'(("text" "plain" NIL NIL NIL "7bit" 5 1)("application" "pdf" ("name" "a.pdf") NIL NIL "base64" 78 NIL'
    b' ("attachment" ("filename" "Plan.pdf")) NIL NIL) "mixed")'
)
FAULTS: dict[str, dict[str, Any]] = {
    "NO": {"structure": "NO"},
    "BAD": {"structure": "BAD"},
    "NIL": {"structures": {1: b"NIL", 2: b"NIL"}},
    "a quote in a name, and all else behind it": {
        "structures": {1: b'("text" "plain" ("name" "a"b") NIL NIL "7bit" 5 1)', 2: b'("'},
        "structure_early": True,
    },
    "a parenthesis too few": {"structures": {1: b'(("text" "plain"', 2: b'("text"'}},
    "a quote in a name": {"structures": {1: b'("text" "plain" ("name" "a"b") NIL NIL "7bit" 5 1)', 2: b'"'}},
    "parentheses without an end": {"structures": {1: b"(" * 5000, 2: b")"}},
}


async def mirrored(fake: FakeImap, rig: Rig) -> dict[int, MessageRow]:
    """What is mirrored of a message that was there and of one that comes."""
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        fake.deliver(mail(2, size=400_000))
        await anyio.sleep(2)
        return {row.uid: row async for row in rig.store.messages("alice")}


@pytest.mark.parametrize("given", [{"bodies": "headers"}, {"max_message_bytes": "50KiB"}], ids=["headers", "too large"])
@virtual_time
async def test_attachments_are_known_by_their_structure(given: dict[str, Any]) -> None:
    fake = FakeImap(structures={1: PDF, 2: PDF})
    fake.deliver(mail(1, size=100_000))
    rig = Rig(fake, **given)
    rows = await mirrored(fake, rig)
    for uid in (1, 2):
        assert [(one.name, one.type, one.size) for one in rows[uid].attachments] == [
            ("Plan.pdf", "application/pdf", 57)
        ]
        assert rows[uid].sha256 is None
    found = [row.uid async for row in rig.store.messages("alice", query=read_query("has:attachment filename:plan"))]
    assert sorted(found) == [1, 2]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("given", [{"bodies": "headers"}, {"max_message_bytes": "50KiB"}], ids=["headers", "too large"])
@virtual_time
async def test_a_structure_that_cannot_be_had_costs_no_message(fault: dict[str, Any], given: dict[str, Any]) -> None:
    fake = FakeImap(**fault)
    fake.deliver(mail(1, size=100_000))
    rows = await mirrored(fake, Rig(fake, **given))
    assert [(row.subject, row.attachments) for row in rows.values()] == [("number 1", ()), ("number 2", ())]
    assert fake.sessions_ever == 1
