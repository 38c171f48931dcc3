"""Look at one mailbox of an account: examine it, say what is due there besides, synchronize, and tell of it."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import anyio

from idlepush.engine.audit import is_due
from idlepush.engine.budget import Budget
from idlepush.engine.following import Following
from idlepush.engine.lane import Lane
from idlepush.engine.latches import Latches
from idlepush.engine.look import Done, Duty, Look, Mailbox, body_rules
from idlepush.engine.moves import Moves
from idlepush.engine.observations import Looked, Observe, Phase, Timed, WakeSource
from idlepush.engine.session import Session
from idlepush.engine.settings import AccountSettings
from idlepush.engine.synchronize import synchronize
from idlepush.imap.types import MailboxName, ModSeq, UidValidity
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Store
from idlepush.sync.events import FoundBy

TURN: Final = 2.0
"""Seconds of backlog before everybody else is looked at again."""

_FOUND_BY: Final[Mapping[WakeSource, FoundBy]] = {
    WakeSource.PUSH: FoundBy.PUSH,
    WakeSource.NOTIFY: FoundBy.PUSH,
    WakeSource.POLL: FoundBy.POLL,
    WakeSource.RENEWAL: FoundBy.POLL,
    WakeSource.RECONNECT: FoundBy.RECONNECT,
    WakeSource.OPERATOR: FoundBy.POLL,
    WakeSource.BACKLOG: FoundBy.POLL,
}


class Looking:
    """What all looks of one account have in common."""

    def __init__(
        self,
        settings: AccountSettings,
        following: Following,
        *,
        store: Store,
        observe: Observe,
        now: Callable[[], datetime],
        latches: Latches,
        lane: Lane,
        budget: Budget,
    ) -> None:
        self._settings = settings
        self._following = following
        self._store = store
        self._observe = observe
        self._now = now
        self._latches = latches
        self._lane = lane
        self._budget = budget
        self._repairs: dict[MailboxName, UidSet] = {}
        self._rules = body_rules(settings)

    def repair(self, name: MailboxName, damaged: UidSet) -> None:
        """Have the next look at *name* compare everything, and fetch *damaged* anew."""
        self._repairs[name] = self._repairs.get(name, UidSet()) | damaged

    async def look(
        self,
        session: Session,
        name: MailboxName,
        source: WakeSource,
        *,
        fresh: bool,
        told_by: FoundBy,
        moves: Moves | None,
    ) -> Done:
        """Synchronize one mailbox, a turn of its backlog included; with *fresh* it is examined first.

        *told_by* is what a message says that the server tells of meanwhile.

        Raises:
            MailboxUnavailable: it cannot be looked at.
            Trouble: the connection is gone.
        """
        await self._budget.load()
        settings, begun, octets = self._settings, anyio.current_time(), session.octets_received
        memory = self._following.memory(name)
        closings = memory.closings
        if fresh:
            await session.examine(name, since=await self._mirrored_up_to(session, name))
            seconds = anyio.current_time() - begun
            self._observe(Timed(account=settings.name, phase=Phase.SELECT, seconds=seconds))
        look = Look(
            session=session,
            store=self._store,
            mailbox=Mailbox(
                account=settings.name, name=name, rules=self._rules, born_watched=self._following.is_born(name)
            ),
            memory=memory,
            found_by=_FOUND_BY[source],
            told_by=told_by,
            now=self._now,
            observe=self._observe,
            latches=self._latches,
            moves=moves,
            duty=Duty.NEWS if self._lane.holds(name) else Duty.ALL,
            closings=closings,
            budget=self._budget,
            counted=octets,
        )
        flags_due = _is_over(memory.flags_at, settings.flags_interval) or source is WakeSource.RECONNECT
        newest_due = source is WakeSource.NOTIFY or (
            source is not WakeSource.PUSH and _is_over(memory.newest_flags_at, settings.poll_interval)
        )
        damaged = self._repairs.get(name)
        audit_due = damaged is not None or (source is not WakeSource.PUSH and await self.is_audit_due(name))
        done = await synchronize(
            look,
            fresh=fresh,
            flags_due=flags_due or audit_due,
            newest_due=newest_due,
            audit_due=audit_due,
            damaged=damaged or UidSet(),
            patience=self._lane.after if self._lane.is_ready else TURN,
        )
        done.remaining = max(done.remaining, self._lane.remaining(name))
        if damaged is not None:
            self._settle_repair(name, done)
        await self._budget.save()
        committed = done.first_commit_at
        self._observe(
            Looked(
                account=settings.name,
                mailbox=name.text,
                source=source,
                seconds=anyio.current_time() - begun,
                new=done.new,
                moved=done.moved,
                flags=done.flags,
                expunged=done.expunged,
                octets=session.octets_received - octets,
                remaining=done.remaining,
                finished=done.finished,
                wake_to_commit=committed - begun if committed is not None and source is WakeSource.PUSH else None,
            )
        )
        return done

    def _settle_repair(self, name: MailboxName, done: Done) -> None:
        left = self._repairs[name] = self._repairs[name] - done.refetched
        if done.finished and not left:
            del self._repairs[name]

    async def is_audit_due(self, name: MailboxName) -> bool:
        """Tell whether everything of *name* is to be compared now."""
        return name in self._repairs or is_due(
            await self._following.mirror(name),
            name=f"{self._settings.name}/{name}",
            interval=self._settings.audit_interval,
            now=self._now(),
        )

    async def _mirrored_up_to(self, session: Session, name: MailboxName) -> tuple[UidValidity, ModSeq] | None:
        """Return what QRESYNC needs to tell what changed since."""
        if not session.uses_qresync:
            return None
        mirror = await self._following.mirror(name)
        if mirror is None or mirror.checkpoint.modseq is None:
            return None
        return mirror.checkpoint.uidvalidity, mirror.checkpoint.modseq


def _is_over(since: float | None, interval: float) -> bool:
    return since is None or anyio.current_time() >= since + interval
