"""Every promise of `store/base.py`, as tests that each store's own test file runs over its own `store` fixture."""

import hashlib
import itertools
import os
from dataclasses import replace
from datetime import date, timedelta
from email.message import EmailMessage
from typing import Any

import anyio
import pytest

from idlepush.errors import StaleGeneration
from idlepush.imap.types import MAX_UID, MailboxName, ModSeq, Uid
from idlepush.imap.uidset import UidSet
from idlepush.store.base import AccountRow, AlertRow, MailboxRow, Store, Sweep
from idlepush.sync.checkpoint import Quarantine
from idlepush.sync.content import Attachment
from idlepush.sync.events import DETAILS, EventType, FoundBy
from idlepush.sync.message import Address, Headers
from idlepush.sync.query import read_query
from tests.store.making import (
    INBOX,
    START,
    Clock,
    all_events,
    begin,
    beginning,
    changes,
    first_of,
    flags,
    hole,
    message,
    mirror,
    part,
    raw,
    replayed,
    row,
    rows,
    shown_alike,
    told,
)
from tests.store.recognition import KnownAgainAfterAReset, MovedBetweenMailboxes

NEW, BODY, FLAGS = EventType.MESSAGE_NEW, EventType.MESSAGE_BODY, EventType.MESSAGE_FLAGS
MOVED, EXPUNGED = EventType.MESSAGE_MOVED, EventType.MESSAGE_EXPUNGED
ARCHIVE = MailboxName(b"Archive")


class GenerationsAndCheckpoints:
    async def test_a_mailbox_never_seen_has_no_mirror(self, store: Store) -> None:
        assert await store.mirror("alice", INBOX) is None
        assert await store.mailboxes() == []
        assert await store.position() == 0
        assert await store.events() == []

    async def test_begin_makes_a_mirror_as_it_was_told_to(self, store: Store) -> None:
        committed = await store.commit(
            changes(None, begin=beginning(7, 50, hole(1, 49), modseq=9), looked_at=START, audited_at=START)
        )

        mirrored = await mirror(store)
        assert committed.position == 1
        assert mirrored.checkpoint.uidvalidity == 7
        assert mirrored.checkpoint.high == 50
        assert mirrored.checkpoint.holes == (hole(1, 49),)
        assert mirrored.checkpoint.modseq == 9
        assert (mirrored.alive, mirrored.older_alive, mirrored.looked_at) == (0, 0, START)
        assert mirrored.audited_at == START
        assert await store.mailboxes("alice") == [
            MailboxRow(
                account="alice",
                name="INBOX",
                raw=b"INBOX",
                state="ok",
                uidvalidity=7,
                messages=0,
                remaining=49,
                looked_at=START,
                audited_at=START,
            )
        ]
        [event] = await store.events()
        assert (event.type, event.mailbox, event.uidvalidity) == (EventType.MAILBOX_NEW, "INBOX", 7)

    async def test_a_second_generation_is_a_reset_and_keeps_the_old_rows_for_now(self, store: Store) -> None:
        first = await begin(store)
        await store.commit(changes(first, new=(message(1),), looked_at=START))

        second = await begin(store, "alice", INBOX, 8)

        mirrored = await mirror(store)
        assert second != first
        assert (mirrored.alive, mirrored.older_alive) == (0, 1)
        assert mirrored.looked_at == START, "what the last good look of the old generation is measured by"
        event = (await store.events())[-1]
        assert event.type is EventType.MAILBOX_RESET
        assert (event.uidvalidity, event.details) == (8, {"uidvalidity_before": 7})
        assert [one.uidvalidity for one in await rows(store)] == [7]
        assert await store.find("alice", INBOX, 1) is None

    async def test_the_same_uidvalidity_may_begin_again(self, store: Store) -> None:
        first = await begin(store)
        second = await begin(store)

        assert second != first
        assert (await store.events())[-1].details == {"uidvalidity_before": 7}

    @pytest.mark.parametrize("is_begun", [False, True], ids=["without a begin", "with a begin"])
    async def test_a_change_for_another_generation_is_refused_and_leaves_no_trace(
        self, store: Store, is_begun: bool
    ) -> None:
        first = await begin(store)
        second = await begin(store, "alice", INBOX, 8)
        position = await store.position()
        start = beginning(9) if is_begun else None

        for generation in (None, first, second + 1):
            with pytest.raises(StaleGeneration, match="INBOX"):
                await store.commit(changes(generation, new=(message(1),), begin=start))

        assert await store.position() == position
        assert await rows(store) == []
        assert (await mirror(store)).generation == second

    async def test_a_mailbox_never_seen_takes_nothing_but_a_begin(self, store: Store) -> None:
        for generation in (None, 1):
            with pytest.raises(StaleGeneration):
                await store.commit(changes(generation, new=(message(1),)))

        assert await store.mailboxes() == []

    async def test_a_begin_may_bring_messages_with_it(self, store: Store) -> None:
        committed = await store.commit(
            changes(None, begin=beginning(7, 5, hole(1, 4)), new=(message(4),), accounted=UidSet.of(4))
        )

        assert committed.new == 1
        assert (await mirror(store)).checkpoint.holes == (hole(1, 3),)

    async def test_accounting_shrinks_holes_and_nothing_else_does(self, store: Store) -> None:
        generation = await begin(store, "alice", INBOX, 7, hole(1, 100))

        await store.commit(changes(generation, new=(message(100),)))
        assert (await mirror(store)).checkpoint.holes == (hole(1, 100),)

        await store.commit(changes(generation, accounted=UidSet.range(51, 90)))
        await store.commit(changes(generation, high=Uid(200), holes=(hole(150, 199, FoundBy.RECONNECT),)))

        checkpoint = (await mirror(store)).checkpoint
        assert checkpoint.high == 200
        assert checkpoint.holes == (hole(150, 199, FoundBy.RECONNECT), hole(91, 100), hole(1, 50))
        assert (await store.mailboxes())[0].remaining == 50 + 10 + 50

    async def test_high_falls_only_by_a_rewind(self, store: Store) -> None:
        generation = await begin(store, "alice", INBOX, 7, hole(1, 100))

        await store.commit(changes(generation, high=Uid(50)))
        assert (await mirror(store)).checkpoint.high == 101

        await store.commit(changes(generation, high=Uid(50), rewind=True))
        assert (await mirror(store)).checkpoint.high == 50

    async def test_changed_flags_bring_their_modseq_where_the_server_tells_it(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, modseq=ModSeq(3)), message(2, modseq=ModSeq(4)))))
        changed = {Uid(1): flags("\\Seen"), Uid(2): flags("\\Seen")}
        await store.commit(changes(generation, flags=changed, modseqs={Uid(1): ModSeq(8)}))
        found = [await row(store, uid) for uid in (1, 2)]
        assert [one.modseq for one in found] == [8, 4]

    async def test_modseq_is_forgotten_when_the_server_has_none_any_more(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, modseq=ModSeq(9)))
        await store.commit(changes(generation, forget_modseq=True))
        assert (await mirror(store)).checkpoint.modseq is None

    async def test_modseq_is_kept_until_another_one_comes(self, store: Store) -> None:
        generation = await begin(store)

        await store.commit(changes(generation, modseq=ModSeq(2**63 - 1)))
        await store.commit(changes(generation, new=(message(1),)))

        assert (await mirror(store)).checkpoint.modseq == 2**63 - 1

    async def test_accounts_and_mailboxes_do_not_mix(self, store: Store) -> None:
        for account in ("alice", "bob"):
            for mailbox in (INBOX, ARCHIVE):
                generation = await begin(store, account, mailbox)
                await store.commit(changes(generation, account, mailbox, new=(message(1),)))

        assert [(one.account, one.mailbox) for one in await rows(store)] == [
            ("alice", "Archive"),
            ("alice", "INBOX"),
            ("bob", "Archive"),
            ("bob", "INBOX"),
        ]
        assert [one.name for one in await store.mailboxes("bob")] == ["Archive", "INBOX"]
        assert (await mirror(store, "bob", ARCHIVE)).alive == 1


class NewMessages:
    async def test_a_row_shows_all_that_was_found(self, store: Store) -> None:
        generation = await begin(store)
        body = b"\x00\xff\r\n" * 7
        committed = await store.commit(
            changes(
                generation,
                new=(
                    message(
                        4294967295,
                        body,
                        flags=flags("\\Seen", "$Important", "\\Answered"),
                        found_by=FoundBy.POLL,
                        modseq=ModSeq(12),
                    ),
                ),
            )
        )

        assert (committed.new, committed.position) == (1, 2)
        found = await row(store, 4294967295)
        assert found == await store.message(found.id)
        assert found.record() == {
            "id": found.id,
            "account": "alice",
            "mailbox": "INBOX",
            "uidvalidity": 7,
            "uid": 4294967295,
            "message_id": "<4294967295@example.org>",
            "subject": "Grüße 4294967295",
            "from": [
                {"name": "Zoë", "address": "zoe@example.org"},
                {"name": None, "address": "a@example.org"},
            ],
            "to": [{"name": "Bob", "address": None}],
            "date": "2024-04-29T12:00:00Z",
            "internal_date": "2024-04-30T16:55:00Z",
            "size": 28,
            "flags": ["$Important", "\\Answered", "\\Seen"],
            "modseq": 12,
            "found_by": "poll",
            "truncated": False,
            "complete": True,
            "sha256": hashlib.sha256(body).hexdigest(),
            "email_id": None,
            "thread_id": None,
            "labels": None,
            "attachments": [],
        }
        assert found.expunged is None

    async def test_the_event_tells_what_the_contract_says(self, store: Store, clock: Clock) -> None:
        generation = await begin(store)
        clock.pass_by(seconds=5)
        await store.commit(changes(generation, new=(message(3, b"x", flags=flags("\\Seen"), initial=True),)))

        event = (await store.events(1))[0]
        assert event.time == clock.now
        assert event.record() == {
            "position": 2,
            "time": "2024-05-01T12:00:05Z",
            "type": "message.new",
            "id": (await row(store, 3)).id,
            "account": "alice",
            "mailbox": "INBOX",
            "uidvalidity": 7,
            "uid": 3,
            "flags": ["\\Seen"],
            "size": 1,
            "internal_date": "2024-04-30T12:03:00Z",
            "message_id": "<3@example.org>",
            "found_by": "push",
            "initial": True,
            "complete": True,
        }

    async def test_what_a_message_lacks_is_null(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, headers=Headers(), internal_date=None),)))

        found = await row(store, 1)
        assert (found.message_id, found.subject, found.date, found.internal_date) == (None, None, None, None)
        assert (found.sender, found.to, found.modseq) == ((), (), None)
        assert await store.sizes(generation, 1, 1) == {1: (found.size, None)}

    async def test_hostile_text_is_kept_as_it_is(self, store: Store) -> None:
        subject = "'; DROP TABLE message; -- \x00 \U0001f4a9 \u202e"
        headers = Headers(message_id="%s", subject=subject, sender=(Address('"', "]["),))
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, headers=headers),)))

        found = await row(store, 1)
        assert (found.subject, found.message_id, found.sender) == (subject, "%s", headers.sender)

    async def test_a_uid_that_is_there_changes_nothing(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1),)))
        before = await row(store, 1)

        committed = await store.commit(
            changes(generation, new=(message(1, b"other", flags=flags("\\Seen")), message(2), message(2, b"twice")))
        )

        assert committed.new == 1
        assert await row(store, 1) == before
        assert await told(store, 2) == [NEW]

    async def test_a_uid_that_is_used_again_is_another_message(self, store: Store) -> None:
        generation = await begin(store)
        ids = []
        for body in (b"one", b"two", b"three"):
            await store.commit(changes(generation, new=(message(1, body),)))
            ids.append((await row(store, 1)).id)
            await store.commit(changes(generation, expunged=UidSet.of(1)))

        assert len(set(ids)) == 3
        assert [one.id for one in await rows(store, expunged=True)] == ids

    async def test_what_one_change_set_both_brings_and_takes_never_was(self, store: Store) -> None:
        generation = await begin(store)
        change = changes(generation, new=(message(1), message(2)), expunged=UidSet.of(1))

        for _ in range(2):
            await store.commit(change)

        assert await told(store, 1) == [NEW]
        assert [one.uid for one in await rows(store)] == [2]

    async def test_ids_are_opaque_and_unknown_ones_name_nothing(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1),)))
        known = (await row(store, 1)).id

        for unknown in (
            "",
            "m",
            known[1:],
            known.upper(),
            known + " ",
            "m0" + known[1:],
            "mzzzzz",
            "m" + "z" * 40,
            "é",
        ):
            assert await store.message(unknown) is None
            with pytest.raises(KeyError):
                await first_of(store.raw(unknown))


class Bodies:
    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(bytes(range(256)), id="every octet"),
            pytest.param(b"a" * 1_000_000, id="long and dull"),
            pytest.param(os.urandom(700_001), id="long and random"),
            pytest.param(os.urandom(256 * 1024), id="exactly a chunk"),
            pytest.param(b"\r\n", id="hardly anything"),
        ],
    )
    async def test_a_raw_message_is_kept_byte_for_byte(self, store: Store, body: bytes) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, body),)))

        found = await row(store, 1)
        assert await raw(store, found.id) == body
        assert found.sha256 == hashlib.sha256(body).hexdigest()

    async def test_headers_alone_are_a_complete_message_without_a_body(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, None, truncated=True),)))

        found = await row(store, 1)
        assert (found.complete, found.truncated, found.sha256) == (True, True, None)
        assert (await mirror(store)).parts == {}
        with pytest.raises(KeyError):
            await first_of(store.raw(found.id))

    async def test_a_long_body_comes_in_slices_and_is_told_of_when_whole(self, store: Store) -> None:
        generation = await begin(store)
        body = os.urandom(300_000) + b"tail" * 100_000
        await store.commit(changes(generation, new=(message(1, body[:100], complete=False),)))
        found = await row(store, 1)
        assert (found.complete, found.sha256) == (False, None)

        origin = 100
        for size in (50, 299_000, 1):
            assert (await mirror(store)).parts == {1: origin}
            with pytest.raises(KeyError):
                await first_of(store.raw(found.id))
            await store.commit(changes(generation, slices=(part(1, origin, body[origin : origin + size]),)))
            origin += size
        await store.commit(changes(generation, slices=(part(1, origin, body[origin:], final=True),)))

        assert await told(store, 1) == [NEW, BODY]
        assert (await store.events(2))[0].details == {
            "sha256": hashlib.sha256(body).hexdigest(),
            "complete": True,
        }
        after = await row(store, 1)
        assert (after.id, after.complete, after.sha256) == (found.id, True, hashlib.sha256(body).hexdigest())
        assert await raw(store, found.id) == body
        assert (await mirror(store)).parts == {}

    async def test_slices_that_do_not_follow_are_left_out(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, b"0123", complete=False),)))

        for slices in (
            (part(1, 0, b"0123"), part(1, 3, b"34", final=True)),  # below: applied before
            (part(1, 5, b"56"), part(1, 6, b"6", final=True)),  # above: something is missing
            (part(9, 0, b"x", final=True),),  # no such message
        ):
            await store.commit(changes(generation, slices=slices))
        assert (await mirror(store)).parts == {1: 4}

        await store.commit(
            changes(generation, slices=(part(1, 4, b"45"), part(1, 4, b"45"), part(1, 6, b"", final=True)))
        )

        assert await raw(store, (await row(store, 1)).id) == b"012345"

    async def test_a_whole_body_takes_no_more_slices(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, b"whole"), message(2, None))))
        position = await store.position()

        await store.commit(
            changes(generation, slices=(part(1, 5, b"more", final=True), part(2, 0, b"more", final=True)))
        )

        assert await store.position() == position
        assert await raw(store, (await row(store, 1)).id) == b"whole"

    async def test_a_part_may_begin_with_nothing(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(
            changes(generation, new=(message(1, None, complete=False), message(2, None, complete=False)))
        )
        assert (await mirror(store)).parts == {1: 0, 2: 0}

        await store.commit(changes(generation, slices=(part(1, 0, b"all", final=True), part(2, 0, b"", final=True))))

        assert await raw(store, (await row(store, 1)).id) == b"all"
        assert (await row(store, 2)).sha256 == hashlib.sha256(b"").hexdigest()
        assert await raw(store, (await row(store, 2)).id) == b""

    async def test_a_body_that_comes_in_slices_may_equal_one_that_is_there(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, b"same body"), message(2, b"same", complete=False))))

        await store.commit(changes(generation, slices=(part(2, 4, b" body", final=True),)))

        assert (await row(store, 1)).sha256 == (await row(store, 2)).sha256
        assert await raw(store, (await row(store, 2)).id) == b"same body"

    async def test_a_message_that_is_replaced_keeps_its_id_and_says_what_it_holds_now(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, b"wrong", flags=flags("\\Seen")),)))
        before, position = await row(store, 1), await store.position()
        right = message(1, b"Subject: right\r\n\r\n", found_by=FoundBy.AUDIT, fingerprint=b"f" * 32)
        await store.commit(changes(generation, replaced=(right, message(9))))
        after = await row(store, 1)
        assert (after.id, after.flags, after.found_by) == (before.id, ("\\Seen",), before.found_by)
        assert await raw(store, after.id) == right.body
        assert (after.size, after.complete) == (right.size, True)
        assert after.sha256 == hashlib.sha256(right.body or b"").hexdigest()
        (event,) = await store.events(position)
        assert (event.type, event.id, event.details) == (
            BODY,
            before.id,
            {"sha256": after.sha256, "complete": True},
        )
        assert (await mirror(store)).alive == 1

    async def test_a_long_message_that_is_replaced_is_whole_again_once_its_slices_are_in(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, b"wrong"),)))
        position = await store.position()
        await store.commit(changes(generation, replaced=(message(1, b"ri", complete=False, size=5),)))
        assert (await mirror(store)).parts == {1: 2}
        await store.commit(changes(generation, slices=(part(1, 2, b"ght", final=True),)))
        assert await raw(store, (await row(store, 1)).id) == b"right"
        assert [event.details["complete"] for event in await store.events(position)] == [False, True]

    async def test_what_came_of_a_body_goes_with_its_message(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, b"begin", complete=False),)))
        await store.commit(changes(generation, expunged=UidSet.of(1)))
        assert (await mirror(store)).parts == {}

        await store.commit(changes(generation, slices=(part(1, 5, b"end", final=True),)))

        [gone] = await rows(store, expunged=True)
        assert (gone.complete, gone.sha256) == (False, None)
        with pytest.raises(KeyError):
            await first_of(store.raw(gone.id))

    async def test_a_whole_body_outlives_its_message_until_it_is_swept(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, b"body"),)))
        await store.commit(changes(generation, expunged=UidSet.of(1)))

        [gone] = await rows(store, expunged=True)
        assert await raw(store, gone.id) == b"body"


class FlagsAndExpunges:
    async def test_flags_that_differ_are_stored_and_told(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1), message(2, flags=flags("\\Seen")))))

        committed = await store.commit(
            changes(generation, flags={Uid(2): flags(), Uid(1): flags("\\Seen", "$Work"), Uid(3): flags("\\Seen")})
        )

        assert (committed.flags, committed.position) == (2, 5)
        assert [(one.uid, one.details) for one in await store.events(3)] == [
            (1, {"flags": ["$Work", "\\Seen"]}),
            (2, {"flags": []}),
        ]
        assert await store.flags(generation, 1, 5) == {1: flags("\\Seen", "$Work"), 2: flags()}

    async def test_flags_that_mean_the_same_write_nothing(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, flags=flags("\\Seen", "$Work")),)))

        committed = await store.commit(changes(generation, flags={Uid(1): flags("$WORK", "\\Seen")}))

        assert (committed.flags, committed.position) == (0, 2)
        assert (await row(store, 1)).flags == ("$Work", "\\Seen")

    async def test_expunged_rows_are_told_once_in_the_order_of_their_uids(self, store: Store, clock: Clock) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=tuple(message(uid) for uid in (5, 1, 9, 3))))
        clock.pass_by(minutes=1)

        gone = UidSet.of(9, 5) | UidSet.range(1_000, MAX_UID)
        committed = [await store.commit(changes(generation, expunged=gone)) for _ in range(2)]

        assert [one.expunged for one in committed] == [2, 0]
        assert [(one.type, one.uid) for one in await store.events(5)] == [(EXPUNGED, 5), (EXPUNGED, 9)]
        assert [(one.uid, one.expunged) for one in await rows(store, expunged=True)] == [(5, clock.now), (9, clock.now)]
        assert await store.find("alice", INBOX, 5) is None
        assert (await mirror(store)).alive == 2

    async def test_all_uids_may_be_expunged_at_no_cost_of_their_number(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1), message(MAX_UID))))

        committed = await store.commit(changes(generation, expunged=UidSet.range(1, MAX_UID)))

        assert committed.expunged == 2

    async def test_flags_of_what_is_gone_are_nothing(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1),)))
        await store.commit(changes(generation, flags={Uid(1): flags("\\Deleted")}, expunged=UidSet.of(1)))
        await store.commit(changes(generation, flags={Uid(1): flags("\\Seen")}, expunged=UidSet.of(1)))

        assert await told(store, 2) == [FLAGS, EXPUNGED]

    async def test_uids_and_sizes_and_flags_are_of_live_rows_in_the_range(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=tuple(message(uid) for uid in (1, 2, 3, 7, 9))))
        await store.commit(changes(generation, expunged=UidSet.of(2)))

        assert await store.uids(generation) == UidSet.of(1, 3, 7, 9)
        assert [*await store.sizes(generation, 2, 7)] == [3, 7]
        assert (await store.sizes(generation, 3, 3))[Uid(3)] == (
            len(b"Subject: 3\r\n\r\nhello 3\r\n"),
            START - timedelta(days=1) + timedelta(minutes=3),
        )
        assert [*await store.flags(generation, 1, 4294967295)] == [1, 3, 7, 9]
        assert await store.uids(generation + 1) == UidSet()


class QuarantinedUids:
    async def test_a_uid_is_in_quarantine_until_it_is_released_stored_or_gone(self, store: Store) -> None:
        generation = await begin(store)
        poor = Quarantine("server says NIL", 1, START + timedelta(minutes=5))
        await store.commit(changes(generation, quarantined={Uid(uid): poor for uid in (4, 3, 2, 1)}))
        assert (await mirror(store)).quarantine == {1: poor, 2: poor, 3: poor, 4: poor}

        worse = Quarantine("BAD", 2, START + timedelta(hours=1))
        await store.commit(changes(generation, quarantined={Uid(1): worse}, released=UidSet.of(2)))
        await store.commit(changes(generation, new=(message(3),), expunged=UidSet.of(4)))

        assert (await mirror(store)).quarantine == {1: worse}

    async def test_a_long_body_may_be_in_quarantine_until_it_is_whole(self, store: Store) -> None:
        generation = await begin(store)
        poor = Quarantine("timeout", 1, START)
        await store.commit(changes(generation, new=(message(1, b"0", complete=False),)))
        await store.commit(changes(generation, quarantined={Uid(1): poor}, slices=(part(1, 1, b"1"),)))
        assert (await mirror(store)).quarantine == {1: poor}

        await store.commit(changes(generation, slices=(part(1, 2, b"2", final=True),)))

        assert (await mirror(store)).quarantine == {}

    async def test_a_new_generation_begins_without_quarantine(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, quarantined={Uid(1): Quarantine("NIL", 1, START)}))

        await begin(store, "alice", INBOX, 8)

        assert (await mirror(store)).quarantine == {}


class Resets:
    async def test_a_message_that_is_known_keeps_its_id_and_body(self, store: Store) -> None:
        first = await begin(store)
        await store.commit(changes(first, new=(message(5, b"body"),)))
        before = await row(store, 5)
        second = await begin(store, "alice", INBOX, 8)

        committed = await store.commit(
            changes(
                second,
                new=(message(1, b"body", fingerprint=message(5).fingerprint, flags=flags("\\Seen"), modseq=ModSeq(3)),),
            )
        )

        assert (committed.moved, committed.new) == (1, 0)
        after = await row(store, 1)
        assert (after.id, after.uidvalidity, after.flags, after.modseq) == (before.id, 8, ("\\Seen",), 3)
        event = (await store.events())[-1]
        assert (event.type, event.id, event.uidvalidity, event.uid) == (MOVED, before.id, 8, 1)
        assert event.details == {
            "flags": ["\\Seen"],
            "mailbox_before": "INBOX",
            "uidvalidity_before": 7,
            "uid_before": 5,
        }
        assert (await mirror(store)).older_alive == 0
        assert await raw(store, after.id) == b"body"
        assert await store.uids(first) == UidSet()

    async def test_each_old_row_serves_once_the_same_uid_first(self, store: Store) -> None:
        same = {"fingerprint": b"twins"}
        first = await begin(store)
        await store.commit(changes(first, new=tuple(message(uid, b"twin", **same) for uid in (4, 2, 6))))
        ids = {uid: (await row(store, uid)).id for uid in (2, 4, 6)}
        second = await begin(store, "alice", INBOX, 8)

        await store.commit(changes(second, new=tuple(message(uid, b"twin", **same) for uid in (6, 1, 3, 5))))

        assert await told(store, 5) == [MOVED, MOVED, MOVED, NEW]
        assert [(await row(store, uid)).id for uid in (6, 1, 3)] == [ids[6], ids[2], ids[4]]

    async def test_a_whole_message_with_another_body_is_another_message(self, store: Store) -> None:
        first = await begin(store)
        await store.commit(changes(first, new=(message(1, b"one"),)))
        second = await begin(store, "alice", INBOX, 8)

        await store.commit(changes(second, new=(message(1, b"two"),)))

        assert (await told(store))[-1] is NEW
        assert (await mirror(store)).older_alive == 1

    async def test_without_a_whole_body_only_a_unique_match_counts(self, store: Store) -> None:
        first = await begin(store)
        twins = {"fingerprint": b"twins"}
        await store.commit(changes(first, new=(message(1, **twins), message(2, **twins), message(3))))
        second = await begin(store, "alice", INBOX, 8)

        await store.commit(
            changes(second, new=(message(1, None, complete=False, **twins), message(3, None, complete=False)))
        )

        assert (await told(store))[-2:] == [NEW, MOVED]
        assert (await mirror(store)).parts == {1: 0}
        assert (await row(store, 3)).complete
        assert await raw(store, (await row(store, 3)).id) == b"Subject: 3\r\n\r\nhello 3\r\n"

    @pytest.mark.parametrize(
        ("before", "after", "kept", "events"),
        [
            pytest.param((None, True), (b"all", True), b"all", [MOVED, BODY], id="headers, then all of it"),
            pytest.param((b"al", False), (b"all", True), b"all", [MOVED, BODY], id="a part, then all of it"),
            pytest.param((b"al", False), (b"a", False), {1: 2}, [MOVED], id="a part, then a part"),
            pytest.param((b"al", False), (None, True), {1: 2}, [MOVED], id="a part, then headers"),
            pytest.param((None, False), (b"a", False), {1: 0}, [MOVED], id="nothing yet, then a part"),
            pytest.param((None, True), (b"a", False), None, [MOVED], id="headers, then a part"),
            pytest.param((None, True), (None, True), None, [MOVED], id="headers, then headers"),
            pytest.param((b"all", True), (b"a", False), b"all", [MOVED], id="all of it, then a part"),
            pytest.param((b"all", True), (None, True), b"all", [MOVED], id="all of it, then headers"),
        ],
    )
    async def test_a_match_loses_nothing_and_takes_what_it_lacks(
        self,
        store: Store,
        before: tuple[bytes | None, bool],
        after: tuple[bytes | None, bool],
        kept: bytes | dict[int, int] | None,
        events: list[EventType],
    ) -> None:
        same = {"fingerprint": b"f", "size": 3}
        first = await begin(store)
        await store.commit(changes(first, new=(message(1, before[0], complete=before[1], **same),)))
        second = await begin(store, "alice", INBOX, 8)
        position = await store.position()

        await store.commit(changes(second, new=(message(1, after[0], complete=after[1], **same),)))

        found = await row(store, 1)
        assert await told(store, position) == events
        if isinstance(kept, bytes):
            assert await raw(store, found.id) == kept
            assert found.complete and found.sha256 == hashlib.sha256(kept).hexdigest()
        else:
            assert (await mirror(store)).parts == (kept or {})
            assert found.complete is (kept is None)

    async def test_matches_are_looked_for_in_all_older_generations_of_that_mailbox_alone(self, store: Store) -> None:
        other = await begin(store, "alice", ARCHIVE)
        await store.commit(changes(other, mailbox=ARCHIVE, new=(message(1), message(2), message(3))))
        first = await begin(store)
        await store.commit(changes(first, new=(message(1),)))
        second = await begin(store, "alice", INBOX, 8)
        await store.commit(changes(second, new=(message(2),)))
        third = await begin(store, "alice", INBOX, 9)
        position = await store.position()

        await store.commit(changes(third, new=(message(1), message(2), message(3))))

        assert await told(store, position) == [MOVED, MOVED, NEW]
        assert (await mirror(store, "alice", ARCHIVE)).alive == 3

    async def test_what_is_left_of_older_generations_is_expunged_in_the_end(self, store: Store) -> None:
        first = await begin(store)
        await store.commit(changes(first, new=(message(9), message(2), message(5, b"be", complete=False))))
        second = await begin(store, "alice", INBOX, 8)
        await store.commit(changes(second, new=(message(1, fingerprint=message(2).fingerprint, body=message(2).body),)))

        committed = [await store.commit(changes(second, forget_older=True)) for _ in range(2)]

        assert [one.expunged for one in committed] == [2, 0]
        events = (await store.events())[-2:]
        assert [(one.type, one.uid, one.uidvalidity) for one in events] == [(EXPUNGED, 5, 7), (EXPUNGED, 9, 7)]
        assert (await mirror(store)).older_alive == 0
        assert [one.uid for one in await rows(store)] == [1]

    async def test_rows_of_older_generations_are_not_touched_by_uid(self, store: Store) -> None:
        first = await begin(store)
        await store.commit(changes(first, new=(message(1),)))
        second = await begin(store, "alice", INBOX, 8)
        position = await store.position()

        await store.commit(changes(second, flags={Uid(1): flags("\\Seen")}, expunged=UidSet.range(1, 9)))

        assert await store.position() == position
        assert (await mirror(store)).older_alive == 1


class GoneMailboxes:
    async def test_a_mailbox_goes_with_one_event(self, store: Store, clock: Clock) -> None:
        first = await begin(store)
        await store.commit(changes(first, new=(message(1), message(2, b"be", complete=False))))
        second = await begin(store, "alice", INBOX, 8)
        await store.commit(changes(second, new=(message(3),)))
        position = await store.position()

        for _ in range(2):
            await store.mailbox_gone("alice", INBOX)

        [event] = await store.events(position)
        assert (event.type, event.mailbox, event.uidvalidity, event.details) == (
            EventType.MAILBOX_GONE,
            "INBOX",
            8,
            {},
        )
        assert await rows(store) == []
        assert [one.uid for one in await rows(store, expunged=True)] == [1, 2, 3]
        assert await store.mirror("alice", INBOX) is None
        [mailbox] = await store.mailboxes()
        assert (mailbox.state, mailbox.uidvalidity, mailbox.messages, mailbox.remaining) == ("gone", None, 0, 0)
        with pytest.raises(StaleGeneration):
            await store.commit(changes(second, new=(message(4),)))

    async def test_a_mailbox_that_comes_back_is_a_new_one(self, store: Store) -> None:
        first = await begin(store)
        await store.commit(changes(first, new=(message(1),), looked_at=START))
        await store.mailbox_gone("alice", INBOX)

        second = await begin(store)
        await store.commit(changes(second, new=(message(1),)))

        assert (await told(store))[-2:] == [EventType.MAILBOX_NEW, NEW]
        mirrored = await mirror(store)
        assert (mirrored.alive, mirrored.older_alive, mirrored.looked_at) == (1, 0, None)
        assert (await store.mailboxes())[0].state == "ok"

    async def test_a_mailbox_never_mirrored_has_nothing_to_tell(self, store: Store) -> None:
        await store.mailbox_gone("alice", INBOX)
        await store.mailbox_gone("alice", ARCHIVE, state="unselectable")

        assert await store.position() == 0
        assert [(one.name, one.state) for one in await store.mailboxes()] == [("Archive", "unselectable")]


class RenamedMailboxes:
    async def test_a_renamed_mailbox_keeps_its_rows_ids_bodies_and_checkpoint(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(
            changes(generation, new=(message(1, b"a"), message(2, b"be", complete=False)), modseq=ModSeq(4))
        )
        await store.commit(changes(generation, new=(message(3),), looked_at=START))
        await store.commit(changes(generation, expunged=UidSet.of(3)))
        before, known = await rows(store), await mirror(store)
        position = await store.position()

        await store.mailbox_renamed("alice", INBOX, ARCHIVE)

        [event] = await store.events(position)
        assert (event.type, event.mailbox, event.uidvalidity, event.details) == (
            EventType.MAILBOX_RENAMED,
            "Archive",
            7,
            {"mailbox_before": "INBOX"},
        )
        assert await store.mirror("alice", INBOX) is None
        assert await mirror(store, "alice", ARCHIVE) == known
        assert await rows(store) == [replace(one, mailbox="Archive") for one in before]
        assert await raw(store, before[0].id) == b"a"
        assert [one.name for one in await store.mailboxes()] == ["Archive"]
        await store.commit(changes(generation, "alice", ARCHIVE, slices=(part(2, 2, b"rt", final=True),)))
        assert (await row(store, 2, "alice", ARCHIVE)).sha256 == hashlib.sha256(b"bert").hexdigest()
        assert replayed(await all_events(store)) == {one.id: shown_alike(one) for one in await rows(store)}

    async def test_what_has_the_new_name_already_is_gone_first(self, store: Store) -> None:
        first = await begin(store)
        await store.commit(changes(first, new=(message(1),)))
        second = await begin(store, "alice", ARCHIVE, 8)
        await store.commit(changes(second, "alice", ARCHIVE, new=(message(9),)))

        await store.mailbox_renamed("alice", INBOX, ARCHIVE)

        assert (await told(store))[-2:] == [EventType.MAILBOX_GONE, EventType.MAILBOX_RENAMED]
        assert [(one.mailbox, one.uid) for one in await rows(store)] == [("Archive", 1)]
        assert [(one.mailbox, one.uid) for one in await rows(store, expunged=True)] == [("Archive", 9)]
        assert (await mirror(store, "alice", ARCHIVE)).older_alive == 0
        with pytest.raises(StaleGeneration):
            await store.commit(changes(second, "alice", ARCHIVE, new=(message(4),)))
        assert replayed(await all_events(store)) == {one.id: shown_alike(one) for one in await rows(store)}

    async def test_a_name_that_was_left_may_be_used_again(self, store: Store) -> None:
        first = await begin(store)
        await store.commit(changes(first, new=(message(1),)))
        await store.mailbox_renamed("alice", INBOX, ARCHIVE)
        second = await begin(store, "alice", INBOX, 8)
        await store.commit(changes(second, new=(message(1),)))
        await store.mailbox_gone("alice", ARCHIVE)
        await store.mailbox_renamed("alice", INBOX, ARCHIVE)

        assert [(one.mailbox, one.uidvalidity) for one in await rows(store)] == [("Archive", 8)]
        assert [(one.mailbox, one.uidvalidity) for one in await rows(store, expunged=True)] == [("Archive", 7)]
        await store.purge("alice")
        assert (await store.mailboxes(), await rows(store, expunged=True)) == ([], [])

    async def test_a_reset_goes_on_under_the_new_name(self, store: Store) -> None:
        first = await begin(store)
        await store.commit(changes(first, new=(message(1, b"a", fingerprint=b"f"), message(2))))
        second = await begin(store, "alice", INBOX, 8)
        await store.mailbox_renamed("alice", INBOX, ARCHIVE)
        await store.commit(
            changes(second, "alice", ARCHIVE, new=(message(5, b"a", fingerprint=b"f"),), forget_older=True)
        )

        assert (await told(store))[-3:] == [EventType.MAILBOX_RENAMED, MOVED, EXPUNGED]
        assert [(one.uid, one.uidvalidity) for one in await rows(store)] == [(5, 8)]

    async def test_what_is_not_mirrored_is_not_renamed(self, store: Store) -> None:
        await store.mailbox_renamed("alice", INBOX, ARCHIVE)
        await store.note_mailbox("alice", INBOX, state="unselectable")
        await store.mailbox_renamed("alice", INBOX, ARCHIVE)
        await begin(store, "alice", ARCHIVE)
        await store.mailbox_renamed("alice", ARCHIVE, ARCHIVE)

        assert await told(store) == [EventType.MAILBOX_NEW]
        assert [(one.name, one.state) for one in await store.mailboxes()] == [
            ("Archive", "ok"),
            ("INBOX", "unselectable"),
        ]


class NotesOnMailboxes:
    async def test_a_note_changes_nothing_but_what_it_says(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1),)))
        position, known = await store.position(), await mirror(store)

        await store.note_mailbox("alice", INBOX, object_id="F1")
        await store.note_mailbox("alice", INBOX, state="unselectable")
        await store.note_mailbox("alice", ARCHIVE, object_id="F2")

        [mailbox] = await store.mailboxes()
        assert (mailbox.state, mailbox.object_id, mailbox.messages) == ("unselectable", "F1", 1)
        assert (await store.position(), await mirror(store)) == (position, known)

    async def test_a_mailbox_keeps_its_object_id_when_it_is_renamed(self, store: Store) -> None:
        await begin(store)
        await store.note_mailbox("alice", INBOX, object_id="F1")
        await store.mailbox_renamed("alice", INBOX, ARCHIVE)

        assert [(one.name, one.object_id) for one in await store.mailboxes()] == [("Archive", "F1")]


class Accounts:
    async def test_a_state_is_told_when_it_changes(self, store: Store, clock: Clock) -> None:
        row = AccountRow(name="alice", state="watching", since=START, details={"capabilities": ["IDLE", None, 1]})
        await store.set_account(row)
        await store.set_account(AccountRow(name="alice", state="watching", since=clock.pass_by(minutes=1)))
        parked = AccountRow(
            name="alice", state="parked", since=START, failure_class="authentication", reason="wrong password"
        )
        await store.set_account(parked)
        await store.set_account(parked)
        await store.set_account(row)

        events = await store.events()
        assert {one.type for one in events} == {EventType.ACCOUNT_STATE}
        assert [one.details for one in events] == [
            {"state": "watching", "state_before": None, "class": None, "reason": None},
            {
                "state": "parked",
                "state_before": "watching",
                "class": "authentication",
                "reason": "wrong password",
            },
            {"state": "watching", "state_before": "parked", "class": None, "reason": None},
        ]
        assert [(one.account, one.mailbox, one.id, one.uid) for one in events] == [("alice", None, None, None)] * 3
        assert await store.accounts() == [row]

    async def test_accounts_are_listed_by_name(self, store: Store) -> None:
        for name in ("bob", "Zoë", "alice"):
            await store.set_account(AccountRow(name=name, state="starting", since=START))

        assert [one.name for one in await store.accounts()] == ["Zoë", "alice", "bob"]

    async def test_a_trouble_that_people_were_told_of_is_remembered_until_its_end_is_told(
        self, store: Store, clock: Clock
    ) -> None:
        alice = AlertRow(
            account="alice",
            resolved=False,
            since=START,
            told=clock.pass_by(minutes=2),
            failure_class="network",
            reason="refused",
        )
        bob = replace(alice, account="bob", failure_class=None, reason=None)
        await store.add_alerts([bob, alice])
        assert await store.alerts() == [alice, bob]

        await store.add_alerts([replace(alice, resolved=True)])
        assert await store.alerts() == [bob]

        events = await store.events()
        assert {one.type for one in events} == {EventType.ACCOUNT_ALERT}
        assert [(one.account, one.details) for one in events] == [
            ("bob", {"kind": "trouble", "class": None, "reason": None}),
            ("alice", {"kind": "trouble", "class": "network", "reason": "refused"}),
            ("alice", {"kind": "resolved", "class": "network", "reason": "refused"}),
        ]

    async def test_a_trouble_that_is_forgotten_is_not_told_of(self, store: Store) -> None:
        told = [
            AlertRow(account=account, resolved=False, since=START, told=START) for account in ("alice", "bob", "carol")
        ]
        await store.add_alerts(told)

        await store.forget_alert("alice")
        await store.forget_alert("nobody")
        await store.purge("bob")
        assert [one.account for one in await store.alerts()] == ["carol"]
        assert await store.position() == 3


class Listings:
    async def test_rows_come_by_account_mailbox_and_uid(self, store: Store) -> None:
        for account, mailbox in (("bob", INBOX), ("alice", INBOX), ("alice", ARCHIVE)):
            generation = await begin(store, account, mailbox)
            await store.commit(changes(generation, account, mailbox, new=tuple(message(uid) for uid in (3, 1, 2))))

        everything = await rows(store)
        assert [(one.account, one.mailbox, one.uid) for one in everything] == [
            (account, mailbox, uid)
            for account, mailbox in (("alice", "Archive"), ("alice", "INBOX"), ("bob", "INBOX"))
            for uid in (1, 2, 3)
        ]
        assert await rows(store, "alice", mailbox=INBOX) == everything[3:6]
        assert await rows(store, mailbox=INBOX) == everything[3:]
        assert await rows(store, "carol") == []
        for at, one in enumerate(everything):
            assert await rows(store, after=one.id) == everything[at + 1 :]
            assert await rows(store, after=one.id, limit=2) == everything[at + 1 :][:2]
        assert await rows(store, "alice", after=everything[1].id) == everything[2:6]

    async def test_the_newest_come_first_where_asked_for(self, store: Store) -> None:
        generation = await begin(store)
        archive = await begin(store, "alice", ARCHIVE)
        dates = {1: 5, 2: None, 3: 9, 4: 1, 5: 5, 6: None}
        new = tuple(
            message(uid, internal_date=None if hour is None else START + timedelta(hours=hour))
            for uid, hour in dates.items()
        )
        await store.commit(changes(generation, new=new[:3]))
        await store.commit(changes(archive, mailbox=ARCHIVE, new=new[3:]))

        newest = await rows(store, "alice", newest=True)

        assert [one.uid for one in newest] == [3, 5, 1, 4, 6, 2]
        assert await rows(store, "alice", newest=True, limit=3) == newest[:3]
        assert await rows(store, newest=True, limit=0) == []
        assert [one.uid for one in await rows(store, mailbox=ARCHIVE, newest=True)] == [5, 4, 6]
        for at, one in enumerate(newest):
            assert await rows(store, "alice", newest=True, after=one.id) == newest[at + 1 :]

    async def test_expunged_rows_come_instead_where_asked_for(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=tuple(message(uid) for uid in range(1, 7))))
        await store.commit(changes(generation, expunged=UidSet.of(2, 4, 6)))

        gone = await rows(store, expunged=True)
        assert [one.uid for one in gone] == [2, 4, 6]
        assert await rows(store, expunged=True, newest=True) == gone[::-1]
        assert await rows(store, expunged=True, after=gone[0].id) == gone[1:]
        assert [one.uid for one in await rows(store)] == [1, 3, 5]

    async def test_a_long_list_is_whole_whatever_comes_and_goes_meanwhile(self, store: Store) -> None:
        generation = await begin(store)
        for first in range(1, 1301, 100):
            new = tuple(message(uid, None) for uid in range(first, first + 100))
            await store.commit(changes(generation, new=new))

        seen = []
        async for one in store.messages("alice"):
            seen.append(one.uid)
            if one.uid in (10, 700):
                await store.commit(changes(generation, expunged=UidSet.of(one.uid - 1, one.uid), new=(message(9999),)))

        assert [uid for uid in seen if uid < 9999] == list(range(1, 1301))
        assert [one.uid for one in await rows(store, newest=True, limit=1)] == [
            max(await rows(store), key=lambda one: (one.internal_date or START, int(one.id[1:], 36))).uid
        ]

    async def test_after_a_row_that_is_no_more_nothing_can_be_listed(self, store: Store) -> None:
        with pytest.raises(KeyError):
            await rows(store, after="m1")

    async def test_events_are_read_after_a_position_up_to_a_limit(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=tuple(message(uid) for uid in range(1, 10))))

        assert [one.position for one in await store.events()] == list(range(1, 11))
        assert [one.position for one in await store.events(4, limit=3)] == [5, 6, 7]
        assert await store.events(10) == []
        assert await store.events(0, limit=0) == []
        assert await store.position() == 10


class TheLog:
    async def test_who_waits_goes_on_with_the_commit(self, store: Store) -> None:
        generation = await begin(store)
        order: list[str] = []

        async def wait(position: int) -> None:
            await store.wait_beyond(position)
            order.append(f"beyond {position}")

        with anyio.fail_after(10):
            await store.wait_beyond(0)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait, 1)
                tasks.start_soon(wait, 2)
                await anyio.wait_all_tasks_blocked()
                await store.commit(changes(generation, accounted=UidSet.of(1)))  # no event
                await anyio.wait_all_tasks_blocked()
                assert order == []
                await store.commit(changes(generation, new=(message(1),)))
                await anyio.wait_all_tasks_blocked()
                assert order == ["beyond 1"]
                await store.set_account(AccountRow(name="alice", state="parked", since=START))
        assert order == ["beyond 1", "beyond 2"]

    async def test_positions_have_no_hole_whatever_is_refused_between(self, store: Store) -> None:
        generations = [await begin(store, f"account {number}") for number in range(10)]

        async def work(number: int) -> None:
            account = f"account {number}"
            for uid in range(1, 11):
                await store.commit(
                    changes(generations[number], account, new=(message(uid),), urgent=bool((uid + number) % 2))
                )
                with pytest.raises(StaleGeneration):
                    await store.commit(changes(999, account, new=(message(uid + 100),)))

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(work, number)

        events = await all_events(store)
        assert [one.position for one in events] == list(range(1, 111))
        for number in range(10):
            mine = [one.uid for one in events if one.account == f"account {number}" and one.uid]
            assert mine == list(range(1, 11))

    async def test_replaying_the_log_gives_the_live_rows(self, store: Store) -> None:
        first = await begin(store)
        await store.commit(changes(first, new=(message(1), message(2), message(3, b"be", complete=False), message(4))))
        await store.commit(changes(first, flags={Uid(1): flags("\\Seen")}, expunged=UidSet.of(2)))
        await store.commit(changes(first, slices=(part(3, 2, b"gin", final=True),)))
        second = await begin(store, "alice", INBOX, 8)
        await store.commit(changes(second, new=(message(1, flags=flags("\\Draft")), message(7))))
        await store.commit(changes(second, forget_older=True))
        archive = await begin(store, "alice", ARCHIVE)
        await store.commit(changes(archive, mailbox=ARCHIVE, new=(message(1),)))
        await store.mailbox_gone("alice", ARCHIVE)

        events = await all_events(store)
        assert replayed(events) == {one.id: shown_alike(one) for one in await rows(store)}
        assert {one.type: frozenset(one.details) for one in events} == {one.type: DETAILS[one.type] for one in events}

    @pytest.mark.parametrize("passes", range(6))
    async def test_a_cancelled_commit_is_there_whole_or_not_at_all(self, store: Store, passes: int) -> None:
        generation = await begin(store)
        change = changes(generation, new=tuple(message(uid) for uid in range(1, 21)), high=Uid(21))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.commit, change)
            for _ in range(passes):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

        # Whatever became of it, the next one finds the store as if nothing had happened, or all of it.
        committed = await store.commit(changes(generation, new=(message(99),)))
        mirrored = await mirror(store)
        assert (mirrored.alive, mirrored.checkpoint.high) in ((1, 1), (21, 21))
        assert committed.position == 1 + mirrored.alive
        assert len(await all_events(store)) == committed.position

    async def test_a_loop_of_commits_or_of_reads_can_be_cancelled(self, store: Store) -> None:
        generation = await begin(store)

        async def commit_for_ever() -> None:
            for uid in itertools.count(1):
                await store.commit(changes(generation, new=(message(uid),)))

        async def read_for_ever() -> None:
            while True:
                await store.position()

        with anyio.fail_after(10):
            for work in (commit_for_ever, read_for_ever):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(work)
                    await store.wait_beyond(3)
                    tasks.cancel_scope.cancel()


class Cursors:
    async def test_what_an_account_received_on_a_day_is_as_it_was_counted_last(self, store: Store) -> None:
        assert await store.traffic("alice") is None
        await store.count_traffic("alice", date(2026, 11, 21), 2**40)
        await store.count_traffic("alice", date(2026, 11, 22), 5)
        await store.count_traffic("bob", date(2026, 11, 22), 7)
        await store.purge("bob")

        assert await store.traffic("alice") == (date(2026, 11, 22), 5)
        assert await store.traffic("bob") is None

    async def test_a_sink_that_never_had_anything_has_no_cursor(self, store: Store) -> None:
        assert await store.cursor("maildir", "alice") is None

    async def test_a_cursor_is_where_it_was_moved_to_and_its_own(self, store: Store) -> None:
        await store.move_cursor(5, "maildir", "alice")
        await store.move_cursor(3, "maildir", "bob")
        await store.move_cursor(9, "webhook", "alice")
        await store.move_cursor(7, "maildir", "alice")

        assert await store.cursor("maildir", "alice") == 7
        assert await store.cursor("maildir", "bob") == 3
        assert await store.cursor("webhook", "alice") == 9
        assert await store.position() == 0, "a cursor that moves is no event"

    async def test_purging_an_account_forgets_its_cursors(self, store: Store) -> None:
        await store.move_cursor(5, "maildir", "alice")
        await store.move_cursor(3, "maildir", "bob")

        await store.purge("alice")

        assert await store.cursor("maildir", "alice") is None
        assert await store.cursor("maildir", "bob") == 3


def mail(subject: str, text: str, *names: str, sender: str = "zoe@example.org") -> bytes:
    letter = EmailMessage()
    letter["Subject"], letter["From"], letter["To"] = subject, sender, "bob@example.com"
    letter.set_content(text)
    for name in names:
        letter.add_attachment(b"x" * 100, maintype="application", subtype="pdf", filename=name)
    return letter.as_bytes()


async def found(store: Store, typed: str, account: str | None = "alice", **given: Any) -> list[int]:
    return [one.uid for one in await rows(store, account, query=read_query(typed), **given)]


class Searches:
    @pytest.fixture
    async def generation(self, store: Store) -> int:
        """Three letters, oldest first, and a message mirrored by its header."""
        generation = await begin(store)
        told = (Attachment("Scan.pdf", "application/pdf", 9), Attachment(None, "image/gif", 1, "<a@b>", inline=True))
        new = (
            message(1, mail("Invoice", "Please pay, says the café in 東京都"), flags=flags("\\Seen")),
            message(2, mail("Re: Invoice", "Paid yesterday\nwith thanks", "Beleg März.pdf")),
            message(3, mail("Holidays", "pay attention", sender="Bob <bob@example.com>"), internal_date=None),
            message(4, None, attachments=told),
        )
        await store.commit(changes(generation, new=new))
        await store.index()
        return generation

    @pytest.mark.parametrize(
        ("typed", "uids"),
        [
            ("", [4, 2, 1, 3]),
            ("invoice", [2, 1]),
            ("INVO", [2, 1]),
            ("invoice paid", [2]),
            ("invoice -paid", [1]),
            ('"paid yesterday with"', [2]),
            ('"yesterday paid"', []),
            ("cafe", [1]),
            ("東京", [1]),
            ("京都", [1]),
            ("京", [1]),
            ("from:bob", [3]),
            ("to:bob", [4, 2, 1, 3]),
            ("subject:grusse", [4]),
            ("has:attachment", [4, 2]),
            ("-has:attachment", [1, 3]),
            ("filename:marz", [2]),
            ("scan", [4]),
            ("is:unread pay", [3]),
            ("is:read", [1]),
            ("before:2000-01-01", [3]),
            ("after:2000-01-01 invoice", [2, 1]),
            ("in:INBOX invoice", [2, 1]),
            ("-in:inbox", []),
            ("in:Nowhere", []),
            ('NEAR("a" b) *', []),
            ("\x00", []),
        ],
    )
    async def test_a_search_finds(self, store: Store, generation: int, typed: str, uids: list[int]) -> None:
        assert await found(store, typed) == uids
        assert await found(store, typed, None) == uids
        assert await found(store, typed, "bob") == []

    async def test_attachments_are_shown_with_their_message(self, store: Store, generation: int) -> None:
        shown = {one.uid: [(at.name, at.type, at.size) for at in one.attachments] for one in await rows(store)}

        assert shown[1] == []
        assert shown[2] == [("Beleg März.pdf", "application/pdf", 100)]
        assert shown[4] == [("Scan.pdf", "application/pdf", 9)]

    async def test_what_a_message_answers_is_known_when_it_was_indexed(self, store: Store, generation: int) -> None:
        letter = b"References: <a@x>\r\n <b@x>\r\nIn-Reply-To: <c@x>\r\n\r\nhello"
        await store.commit(changes(generation, new=(message(9, letter),)))
        await store.index()

        assert await store.references((await row(store, 9)).id) == ("<a@x>", "<b@x>", "<c@x>")
        assert await store.references((await row(store, 1)).id) == ()
        assert await store.references((await row(store, 4)).id) == ()
        assert await store.references("m999") == ()

    async def test_pages_follow_each_other(self, store: Store, generation: int) -> None:
        first = await rows(store, "alice", query=read_query("to:bob"), limit=2)
        rest = await rows(store, "alice", query=read_query("to:bob"), after=first[-1].id)

        assert [one.uid for one in [*first, *rest]] == [4, 2, 1, 3]
        with pytest.raises(KeyError):
            await rows(store, "alice", query=read_query(""), after="m999")

    async def test_a_long_answer_is_whole_and_in_order(self, store: Store, generation: int) -> None:
        new = tuple(message(uid, mail(f"number {uid}", "a long answer")) for uid in range(10, 1200))
        await store.commit(changes(generation, new=new))
        await store.index()

        answer = await rows(store, "alice", query=read_query("long answer"))

        assert {one.uid for one in answer} == set(range(10, 1200))
        assert [one.id for one in answer] == [
            one.id for one in await rows(store, "alice", newest=True) if one.uid >= 10
        ]

    async def test_what_is_expunged_is_not_found(self, store: Store, generation: int) -> None:
        await store.commit(changes(generation, expunged=UidSet.of(2)))
        assert await found(store, "invoice") == [1]

        await store.mailbox_gone("alice", INBOX)
        assert await found(store, "invoice") == []

    async def test_each_message_of_a_shared_body_is_found(self, store: Store, generation: int) -> None:
        other = await begin(store, "alice", ARCHIVE)
        bobs = await begin(store, "bob")
        letter = mail("Invoice", "Please pay, says the café in 東京都")
        await store.commit(changes(other, "alice", ARCHIVE, new=(message(7, letter),)))
        await store.commit(changes(bobs, "bob", new=(message(8, letter),)))
        await store.index()

        assert sorted(await found(store, "cafe")) == [1, 7]
        assert await found(store, "cafe", mailbox=ARCHIVE) == [7]
        assert await found(store, "cafe in:Archive") == [7]
        assert await found(store, "cafe", "bob") == [8]
        assert sorted(await found(store, "cafe", None)) == [1, 7, 8]

        await store.purge("alice")
        await store.index()
        assert await found(store, "cafe", None) == [8]

    async def test_a_long_message_is_found_by_its_header_then_by_its_text(self, store: Store, generation: int) -> None:
        letter = mail("Long", "the words at its very end", "Big.pdf")
        begun = message(9, letter[:90], complete=False)
        await store.commit(changes(generation, new=(begun,)))
        await store.index()
        assert await found(store, "subject:9") == [9]
        assert await found(store, "very") == []

        await store.commit(changes(generation, slices=(part(9, 90, letter[90:], final=True),)))
        await store.index()

        assert await found(store, "very") == [9]
        assert await found(store, "subject:long has:attachment") == [9]
        assert await found(store, "subject:9") == []

    async def test_a_body_that_was_swept_is_forgotten(self, store: Store, generation: int, clock: Clock) -> None:
        await store.commit(changes(generation, expunged=UidSet.of(1, 2)))
        await store.sweep(Sweep(bodies_before=clock.pass_by(hours=1), rows_before=None))
        await store.index()

        assert await found(store, "invoice") == []
        assert [one.attachments for one in await rows(store, expunged=True)] == [(), ()]

    async def test_searching_changes_nothing_that_others_see(self, store: Store, generation: int) -> None:
        position = await store.position()
        await store.index()
        await found(store, "invoice")
        assert await store.position() == position


class Retention:
    async def test_a_body_is_swept_some_time_after_its_last_message(self, store: Store, clock: Clock) -> None:
        generation = await begin(store)
        new = (message(1, b"shared"), message(2, b"shared"), message(3, b"alone"), message(4, b"late"), message(5))
        await store.commit(changes(generation, new=new))
        ids = {uid: (await row(store, uid)).id for uid in range(1, 6)}
        await store.commit(changes(generation, expunged=UidSet.of(1, 3)))
        between = clock.pass_by(minutes=10)
        await store.commit(changes(generation, expunged=UidSet.of(4)))
        position = await store.position()

        await store.sweep(Sweep(bodies_before=between, rows_before=None))

        assert [uid for uid, name in ids.items() if await _has_body(store, name)] == [1, 2, 4, 5]
        swept = await store.message(ids[3])
        assert swept is not None
        assert swept.sha256 == hashlib.sha256(b"alone").hexdigest(), "the row still tells what it was"

        await store.commit(changes(generation, expunged=UidSet.of(2)))
        await store.sweep(Sweep(bodies_before=clock.pass_by(minutes=10), rows_before=None))

        assert [uid for uid, name in ids.items() if await _has_body(store, name)] == [5]
        assert await store.position() == position + 1, "sweeping is no event"

    async def test_a_body_that_was_swept_may_come_again(self, store: Store, clock: Clock) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, b"again"),)))
        gone = (await row(store, 1)).id
        await store.commit(changes(generation, expunged=UidSet.of(1)))
        await store.sweep(Sweep(bodies_before=clock.pass_by(hours=1), rows_before=None))

        await store.commit(changes(generation, new=(message(2, b"again"),)))

        assert await raw(store, (await row(store, 2)).id) == b"again"
        assert not await _has_body(store, gone)

    async def test_rows_go_in_their_time_and_what_is_live_never(self, store: Store, clock: Clock) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=tuple(message(uid) for uid in (1, 2, 3))))
        old = (await row(store, 1)).id
        await store.commit(changes(generation, expunged=UidSet.of(1)))
        between = clock.pass_by(days=1)
        await store.commit(changes(generation, expunged=UidSet.of(2)))
        events = await all_events(store)

        await store.sweep(Sweep(bodies_before=None, rows_before=between))

        assert [one.uid for one in await rows(store, expunged=True)] == [2]
        assert [one.uid for one in await rows(store)] == [3]
        assert await store.message(old) is None
        assert await all_events(store) == events
        assert await raw(store, (await rows(store, expunged=True))[0].id) != b""

    async def test_nothing_goes_where_all_is_kept(self, store: Store, clock: Clock) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1),)))
        await store.commit(changes(generation, expunged=UidSet.of(1)))
        clock.pass_by(days=10_000)

        await store.sweep(Sweep(bodies_before=None, rows_before=None))

        [gone] = await rows(store, expunged=True)
        assert await _has_body(store, gone.id)

    async def test_a_sweep_of_much_takes_all_of_it(self, store: Store, clock: Clock) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=tuple(message(uid) for uid in range(1, 1300))))
        await store.commit(changes(generation, expunged=UidSet.range(1, 1200)))
        before = clock.pass_by(days=1)

        await store.sweep(Sweep(bodies_before=before, rows_before=before))

        assert await rows(store, expunged=True) == []
        assert (await mirror(store)).alive == 99

    async def test_a_purge_leaves_the_events_alone(self, store: Store) -> None:
        for account in ("alice", "bob"):
            await store.set_account(AccountRow(name=account, state="watching", since=START))
            generation = await begin(store, account)
            await store.commit(
                changes(
                    generation,
                    account,
                    new=(message(1, b"shared"), message(2), message(3, b"be", complete=False)),
                    quarantined={Uid(9): Quarantine("NIL", 1, START)},
                )
            )
            await begin(store, account, INBOX, 8)
        events = await all_events(store)

        await store.purge("alice")

        assert [one.name for one in await store.accounts()] == ["bob"]
        assert [one.account for one in await store.mailboxes()] == ["bob"]
        assert await store.mirror("alice", INBOX) is None
        assert [(one.account, one.uid) for one in await rows(store)] == [("bob", 1), ("bob", 2), ("bob", 3)]
        assert await raw(store, (await rows(store))[0].id) == b"shared"
        assert await all_events(store) == events

        await begin(store, "alice")
        assert (await told(store))[-1] is EventType.MAILBOX_NEW

    async def test_a_purge_of_much_takes_all_of_it(self, store: Store) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=tuple(message(uid) for uid in range(1, 1300))))

        await store.purge("alice")

        assert await rows(store) == []
        assert await store.mailboxes() == []


class StoreConformance(
    KnownAgainAfterAReset,
    MovedBetweenMailboxes,
    GenerationsAndCheckpoints,
    NewMessages,
    Bodies,
    FlagsAndExpunges,
    QuarantinedUids,
    Resets,
    GoneMailboxes,
    RenamedMailboxes,
    NotesOnMailboxes,
    Accounts,
    Listings,
    TheLog,
    Cursors,
    Searches,
    Retention,
):
    """All of it; a store's test class inherits this and has a `store` fixture that goes by the `clock` fixture."""


async def _has_body(store: Store, id: str) -> bool:
    try:
        await first_of(store.raw(id))
    except KeyError:
        return False
    return True
