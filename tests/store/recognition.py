"""What every store promises of messages that are known again: after a reset without their bodies, or moved."""

from typing import Any

from idlepush.imap.types import MailboxName, Uid
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Store
from idlepush.sync.changes import KnownAgain
from idlepush.sync.events import EventType
from idlepush.sync.identity import Identity
from tests.store.making import INBOX, START, begin, changes, flags, hole, message, mirror, raw, row, rows, told

ARCHIVE = MailboxName(b"Archive")
NEW, MOVED, EXPUNGED = EventType.MESSAGE_NEW, EventType.MESSAGE_MOVED, EventType.MESSAGE_EXPUNGED


def named(name: str) -> Identity:
    return Identity(email_id=name)


def again(uid: int, **given: Any) -> KnownAgain:
    fields: dict[str, Any] = {
        "flags": flags("\\Seen"),
        "internal_date": START,
        "size": 7,
        "modseq": None,
        "identity": Identity(),
        "fingerprint": None,
        **given,
    }
    return KnownAgain(uid=Uid(uid), **fields)


class KnownAgainAfterAReset:
    async def test_what_has_the_same_name_keeps_its_id_and_body_and_leaves_its_hole(self, store: Store) -> None:
        first = await begin(store)
        await store.commit(changes(first, new=(message(5, b"body", identity=named("M1")), message(6))))
        before = await row(store, 5)
        second = await begin(store, "alice", INBOX, 8, hole(1, 9))

        done = await store.commit(changes(second, known_again=(again(1, identity=named("M1")), again(2))))

        assert done.known == UidSet.of(1)
        assert (done.moved, done.new) == (1, 0)
        after = await row(store, 1)
        assert (after.id, after.flags, after.uidvalidity) == (before.id, ("\\Seen",), 8)
        assert await raw(store, after.id) == b"body"
        mirrored = await mirror(store)
        assert mirrored.checkpoint.in_holes == UidSet.range(2, 9)
        assert mirrored.older_alive == 1

    async def test_each_row_of_one_name_serves_once_the_same_uid_first(self, store: Store) -> None:
        first = await begin(store)
        await store.commit(changes(first, new=tuple(message(uid, b"m", identity=named("M1")) for uid in (2, 4))))
        ids = {uid: (await row(store, uid)).id for uid in (2, 4)}
        second = await begin(store, "alice", INBOX, 8, hole(1, 9))

        told_again = tuple(again(uid, identity=named("M1")) for uid in (4, 1, 7))
        done = await store.commit(changes(second, known_again=told_again))

        assert done.known == UidSet.of(1, 4)
        assert [(await row(store, uid)).id for uid in (4, 1)] == [ids[4], ids[2]]

    async def test_a_fingerprint_tells_only_where_it_is_that_of_one_row(self, store: Store) -> None:
        first = await begin(store)
        twins = {"fingerprint": b"twins"}
        await store.commit(changes(first, new=(message(1, **twins), message(2, **twins), message(3, fingerprint=b"f"))))
        second = await begin(store, "alice", INBOX, 8, hole(1, 9))

        done = await store.commit(
            changes(second, known_again=(again(1, fingerprint=b"twins"), again(2, fingerprint=b"f")))
        )

        assert done.known == UidSet.of(2)

    async def test_known_again_twice_is_known_once(self, store: Store) -> None:
        first = await begin(store)
        await store.commit(changes(first, new=(message(5, identity=named("M1")),)))
        second = await begin(store, "alice", INBOX, 8, hole(1, 9))
        for _ in range(2):
            await store.commit(changes(second, known_again=(again(1, identity=named("M1")),)))
        assert (await told(store)).count(MOVED) == 1


class MovedBetweenMailboxes:
    async def test_what_is_leaving_one_mailbox_arrives_in_the_other_with_its_id(self, store: Store) -> None:
        inbox = await begin(store)
        archive = await begin(store, "alice", ARCHIVE)
        await store.commit(changes(inbox, new=(message(3, b"body"), message(4))))
        before = await row(store, 3)

        arrived = message(9, b"body", fingerprint=message(3).fingerprint)
        leaving = {inbox: UidSet.of(3)}
        done = await store.commit(changes(archive, mailbox=ARCHIVE, new=(arrived,), leaving=leaving))

        assert (done.moved, done.new) == (1, 0)
        after = await row(store, 9, "alice", ARCHIVE)
        assert (after.id, after.mailbox) == (before.id, "Archive")
        event = (await store.events())[-1]
        assert (event.type, event.mailbox, event.uid) == (MOVED, "Archive", 9)
        assert (event.details["mailbox_before"], event.details["uid_before"]) == ("INBOX", 3)
        assert [one.uid for one in await rows(store, "alice", mailbox=INBOX)] == [4]
        assert ((await mirror(store)).alive, (await mirror(store, "alice", ARCHIVE)).alive) == (1, 1)

        # What was to be expunged there is there no more: nothing is told twice.
        await store.commit(changes(inbox, expunged=UidSet.of(3)))
        assert EXPUNGED not in await told(store)

    async def test_a_copy_of_what_stays_is_a_new_message(self, store: Store) -> None:
        inbox = await begin(store)
        archive = await begin(store, "alice", ARCHIVE)
        await store.commit(changes(inbox, new=(message(3, b"body", identity=named("M1")),)))

        arrived = message(9, b"body", identity=named("M1"))
        await store.commit(changes(archive, mailbox=ARCHIVE, new=(arrived,), leaving={inbox: UidSet.of(8)}))

        assert (await told(store))[-1] is NEW
        assert (await mirror(store)).alive == 1

    async def test_another_body_under_the_same_name_is_another_message(self, store: Store) -> None:
        inbox = await begin(store)
        archive = await begin(store, "alice", ARCHIVE)
        await store.commit(changes(inbox, new=(message(3, b"body", identity=named("M1")),)))

        arrived = message(9, b"ydob", identity=named("M1"))
        await store.commit(changes(archive, mailbox=ARCHIVE, new=(arrived,), leaving={inbox: UidSet.of(3)}))

        assert (await told(store))[-1] is NEW
        assert await raw(store, (await row(store, 9, "alice", ARCHIVE)).id) == b"ydob"

    async def test_another_body_under_the_same_header_is_another_message(self, store: Store) -> None:
        inbox = await begin(store)
        archive = await begin(store, "alice", ARCHIVE)
        await store.commit(changes(inbox, new=(message(3, b"body"),)))

        arrived = message(9, b"ydob", fingerprint=message(3).fingerprint)
        await store.commit(changes(archive, mailbox=ARCHIVE, new=(arrived,), leaving={inbox: UidSet.of(3)}))

        assert (await told(store))[-1] is NEW

    async def test_twins_are_found_in_the_other_mailboxes_by_name_or_fingerprint(self, store: Store) -> None:
        inbox = await begin(store)
        archive = await begin(store, "alice", ARCHIVE)
        await begin(store, "bob", ARCHIVE)
        here = (message(3, b"body"), message(4, identity=named("M4")), message(5))
        await store.commit(changes(inbox, new=here))
        gone = message(6, fingerprint=message(5).fingerprint)
        there = (
            message(7, b"body", fingerprint=here[0].fingerprint),
            message(8, identity=named("M4"), fingerprint=b"another"),
            gone,
        )
        await store.commit(changes(archive, mailbox=ARCHIVE, new=there))
        await store.commit(changes(archive, mailbox=ARCHIVE, expunged=UidSet.of(6)))

        (twins,) = await store.twins("alice", INBOX, here)

        assert (twins.mailbox, twins.generation, twins.uidvalidity) == (ARCHIVE, archive, 7)
        assert twins.uids == UidSet.of(7, 8)
        assert await store.twins("bob", INBOX, here) == []
        assert await store.twins("alice", INBOX, [message(99)]) == []
