"""Watch one account: one session from login to its end, in which its mailboxes are synchronized and then waited for.

    open ─▶ look at every mailbox ─▶ ┌ look at the first ─ at the others, when due ─ wait ┐ ─▶ …
                                     └────────────────────── for ever ────────────────────┘

The first mailbox is the one that idles; the others are asked by STATUS each `poll_interval`, and looked at where that
differs from what is mirrored. A backlog is worked off in turns of a few seconds, newest first, between which
everybody is looked at, so that new mail never waits for old. Every IDLE renewal is a new EXAMINE: a full look that
proves the push, or finds what it kept back.

Nothing is retried here. `Watch` outlives its sessions, because what was learned of the server (IDLE that is mute, a
window it died of) is worth keeping; `session` runs one of them and raises what ended it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import anyio

from idlepush.engine.audit import is_due
from idlepush.engine.connection import IdleEnd
from idlepush.engine.dial import Dial, dial_tcp
from idlepush.engine.latches import Latches
from idlepush.engine.limits import LoginLimit
from idlepush.engine.login import choose_mailboxes, log_in
from idlepush.engine.look import Done, Look, Mailbox, Memory
from idlepush.engine.observations import (
    Connected,
    Connecting,
    Disconnected,
    IdleDistrusted,
    IdleRenewed,
    IdleWasSilent,
    Looked,
    MailboxTrouble,
    Observe,
    Phase,
    ServerAlert,
    State,
    StateChanged,
    Timed,
    Waiting,
    WakeSource,
    Woken,
)
from idlepush.engine.session import SLICE, MailboxStatus, Session
from idlepush.engine.settings import AccountSettings
from idlepush.engine.synchronize import synchronize
from idlepush.engine.wake import Wake
from idlepush.errors import FailureClass, IdleTimedOut, MailboxUnavailable, Trouble
from idlepush.imap.types import MailboxName, ModSeq, UidValidity
from idlepush.store.base import Mirror, Store
from idlepush.sync.arrivals import BodyRules
from idlepush.sync.events import FoundBy

INBOX: Final = MailboxName(b"INBOX")
TURN: Final = 2.0
"""Seconds of backlog before everybody else is looked at again."""
TOLERANCE: Final = 0.5
"""Seconds by which a poll may come early: better than another wait for the rest."""
DISTRUST: Final = 3600.0
"""Seconds for which IDLE is not tried again after it failed."""
OWN_LOGINS_PER_SECOND: Final = 0.2
OWN_LOGIN_BURST: Final = 10
"""One account's own share of the host's patience: a server that drops every session is not hammered for it."""
SHORT_IDLE: Final = 10.0
"""An IDLE that the server ends earlier than this, without a word, is a failure."""
FAILED_IDLES: Final = 3
SHORTEST_RENEW: Final = 60.0
"""Seconds: what `idle_renew` may be learned down to where connections are forgotten on the way (NAT)."""
MOST_SILENCES: Final = 2

_FOUND_BY: Final[Mapping[WakeSource, FoundBy]] = {
    WakeSource.PUSH: FoundBy.PUSH,
    WakeSource.POLL: FoundBy.POLL,
    WakeSource.RENEWAL: FoundBy.POLL,
    WakeSource.RECONNECT: FoundBy.RECONNECT,
    WakeSource.OPERATOR: FoundBy.POLL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What every account shares: the effects, each from one place."""

    store: Store
    observe: Observe
    now: Callable[[], datetime]
    environment: Mapping[str, str]
    logins: LoginLimit
    dial: Dial = dial_tcp
    tell_delimiter: Callable[[str, str | None], None] = lambda _account, _delimiter: None
    """Whoever names something by an account's mailboxes is told what separates the levels of their names."""


class Watch:
    """One account. `wake` says look; `stop` ends the running session at its next quiet moment."""

    def __init__(self, settings: AccountSettings, around: Surroundings) -> None:
        self.settings = settings
        self.wake = Wake()
        self.synchronized = False
        """The running session has finished a synchronize: it was of use."""
        self.state = State.STARTING
        self._around = around
        self._stopping = False
        self._memories: dict[MailboxName, Memory] = {}
        self._absent: set[MailboxName] = set()
        self._latches = Latches(settings.name, around.observe)
        self._own_logins = LoginLimit(OWN_LOGINS_PER_SECOND, OWN_LOGIN_BURST)
        self._winner: str | None = None
        self._idle_renew = min(settings.idle_renew, settings.proof_interval)  # a renewal is the proof
        self._idle_failures = 0
        self._silences = 0
        self._idle_end = IdleEnd.WAKE
        self._idle_again_at = -math.inf
        self._rules = BodyRules(
            headers_only=settings.bodies == "headers", longest=settings.max_message_bytes, slice=SLICE
        )

    def stop(self) -> None:
        """End the session at its next quiet moment, with a LOGOUT."""
        self._stopping = True
        self.wake.set()

    # One session

    async def session(self) -> None:
        """Run one session until it is stopped.

        Raises:
            Trouble: it ended for this reason.
            StoreError: a commit failed; the session is closed, as nothing it brings could be kept.
        """
        self.synchronized = False
        session = await self._open()
        trouble: Trouble | None = None
        try:
            await self._watch(session)
        except Trouble as error:
            trouble = error
            if isinstance(error, IdleTimedOut):
                self._learn_from_idle(error)
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await (session.logout() if trouble is None else session.aclose())
            self._around.observe(
                Disconnected(
                    account=self.settings.name,
                    failure_class=trouble.failure_class if trouble else None,
                    reason=str(trouble) if trouble else None,
                )
            )

    async def _open(self) -> Session:
        account, begun = self.settings.name, anyio.current_time()
        self._around.observe(Connecting(account=account))
        await self._own_logins.admit(account)
        session = await log_in(
            self.settings,
            self._around.environment,
            limit=self._around.logins,
            dial=self._around.dial,
            winner=self._winner,
            without=self._latches.forgone,
        )
        self._winner = session.endpoint
        seconds = anyio.current_time() - begun
        self._around.observe(Connected(account=account, endpoint=session.endpoint, seconds=seconds))
        self._around.observe(Timed(account=account, phase=Phase.CONNECT, seconds=session.connect_seconds))
        self._around.observe(Timed(account=account, phase=Phase.LOGIN, seconds=session.login_seconds))
        return session

    async def _watch(self, session: Session) -> None:
        if self.settings.maildir is not None:
            self._around.tell_delimiter(self.settings.name, await session.delimiter())
        mailboxes = Mailboxes(await choose_mailboxes(session, self.settings.mailboxes), anyio.current_time())
        source = WakeSource.RECONNECT
        while not self._stopping:
            self._around.observe(Woken(account=self.settings.name, source=source))
            await self._look_at_first(session, mailboxes, source)
            await self._look_at_others(session, mailboxes, source)
            self._pass_alerts_on(session)
            self._settled(session)
            if not mailboxes.backlog:
                source = await self._wait(session, mailboxes)
            else:
                # The next turn is no reconnect any more: all flags were compared, all others asked.
                source = WakeSource.OPERATOR if self.wake.take() else WakeSource.POLL

    # Looking

    async def _look_at_first(self, session: Session, mailboxes: "Mailboxes", source: WakeSource) -> None:
        """Look at the mailbox that idles; where it cannot be had, the next one takes its place."""
        first = mailboxes.first
        now = anyio.current_time()
        is_fresh = source is not WakeSource.PUSH or session.view is None or session.view.mailbox != first
        pushed = session.view is not None and session.view.heard.exists
        try:
            done = await self._look(session, first, source, fresh=is_fresh)
        except MailboxUnavailable as unavailable:
            await self._lost(session, first, unavailable)
            if not mailboxes.give_way():
                raise
            return
        if is_fresh:
            mailboxes.examined_at = now
        mailboxes.note(first, done)
        if source is WakeSource.RENEWAL:
            self._judge_push(first, silent=done.new > 0 and not pushed)

    async def _look_at_others(self, session: Session, mailboxes: "Mailboxes", source: WakeSource) -> None:
        """Ask how the others stand, when it is time, and look at those that changed or have a backlog."""
        now = anyio.current_time()
        is_due = source is not WakeSource.PUSH and (
            source in (WakeSource.RECONNECT, WakeSource.OPERATOR)
            or now >= mailboxes.polled_at + self.settings.poll_interval - TOLERANCE
        )
        if is_due:
            mailboxes.polled_at = now
        left_first = False
        for name in mailboxes.others:
            if not (is_due or name in mailboxes.backlog):
                continue
            look_source = source if source is WakeSource.RECONNECT else WakeSource.POLL
            try:
                if name not in mailboxes.backlog and not await self._has_changed(session, name):
                    continue
                left_first = True
                mailboxes.note(name, await self._look(session, name, look_source, fresh=True))
            except MailboxUnavailable as unavailable:
                await self._lost(session, name, unavailable)
                mailboxes.backlog.discard(name)
            if self._stopping:
                return
        if left_first and not mailboxes.backlog:
            await self._look_at_first(session, mailboxes, WakeSource.POLL)

    async def _has_changed(self, session: Session, name: MailboxName) -> bool:
        status = await session.status(name)
        mirror = await self._around.store.mirror(self.settings.name, name)
        if mirror is None or differs(mirror, status) or self._is_audit_due(name, mirror):
            return True
        if mirror.checkpoint.modseq is not None and status.modseq is not None:
            return False  # flags, too, are as they were
        return self._is_over(self._memory(name).flags_at, self.settings.flags_interval)

    async def _look(self, session: Session, name: MailboxName, source: WakeSource, *, fresh: bool) -> Done:
        """Synchronize one mailbox, a turn of its backlog included; with *fresh* it is examined first."""
        account, begun, octets = self.settings.name, anyio.current_time(), session.octets_received
        memory = self._memory(name)
        if fresh:
            await session.examine(name, since=await self._mirrored_up_to(session, name, memory))
            self._around.observe(Timed(account=account, phase=Phase.SELECT, seconds=anyio.current_time() - begun))
        look = Look(
            session=session,
            store=self._around.store,
            mailbox=Mailbox(account=account, name=name, rules=self._rules, born_watched=name in self._absent),
            memory=memory,
            found_by=_FOUND_BY[source],
            told_by=FoundBy.PUSH if self._idles(session) else FoundBy.POLL,
            now=self._around.now,
            observe=self._around.observe,
            latches=self._latches,
        )
        flags_due = self._is_over(memory.flags_at, self.settings.flags_interval) or source is WakeSource.RECONNECT
        newest_due = source is not WakeSource.PUSH and self._is_over(
            memory.newest_flags_at, self.settings.poll_interval
        )
        audit_due = source is not WakeSource.PUSH and self._is_audit_due(
            name, memory.mirror or await self._around.store.mirror(account, name)
        )
        done = await synchronize(
            look,
            fresh=fresh,
            flags_due=flags_due or audit_due,
            newest_due=newest_due,
            audit_due=audit_due,
            patience=TURN,
        )
        self._absent.discard(name)
        committed = done.first_commit_at
        self._around.observe(
            Looked(
                account=account,
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

    async def _mirrored_up_to(
        self, session: Session, name: MailboxName, memory: Memory
    ) -> tuple[UidValidity, ModSeq] | None:
        """Return what QRESYNC needs to tell what changed since."""
        if not session.uses_qresync:
            return None
        mirror = memory.mirror or await self._around.store.mirror(self.settings.name, name)
        if mirror is None or mirror.checkpoint.modseq is None:
            return None
        return mirror.checkpoint.uidvalidity, mirror.checkpoint.modseq

    def _is_audit_due(self, name: MailboxName, mirror: Mirror | None) -> bool:
        return is_due(
            mirror,
            name=f"{self.settings.name}/{name}",
            interval=self.settings.audit_interval,
            now=self._around.now(),
        )

    def _memory(self, name: MailboxName) -> Memory:
        return self._memories.setdefault(name, Memory())

    def _is_over(self, since: float | None, interval: float) -> bool:
        return since is None or anyio.current_time() >= since + interval

    async def _lost(self, session: Session, name: MailboxName, unavailable: MailboxUnavailable) -> None:
        """A mailbox cannot be looked at: gone, if the server no longer lists it; else left alone until later."""
        if await self._is_gone(session, name, unavailable):
            self._memories.pop(name, None)
            if name not in self._absent:
                state = "unselectable" if await session.listed(name) else "gone"
                await self._around.store.mailbox_gone(self.settings.name, name, state=state)
            self._absent.add(name)
        self._around.observe(MailboxTrouble(account=self.settings.name, mailbox=name.text, reason=str(unavailable)))

    async def _is_gone(self, session: Session, name: MailboxName, unavailable: MailboxUnavailable) -> bool:
        # INBOX is always there (RFC 9051 section 5.1), and a server in trouble is not believed when it lists nothing.
        if name == INBOX or unavailable.failure_class not in (FailureClass.PERMISSION, FailureClass.OTHER):
            return False
        return not await session.lists(name)

    # Waiting

    async def _wait(self, session: Session, mailboxes: "Mailboxes") -> WakeSource:
        """Wait for the server, an operator or the time; say which it was."""
        now, settings = anyio.current_time(), self.settings
        renewal = mailboxes.examined_at + self._idle_renew
        poll = mailboxes.polled_at + settings.poll_interval
        idling = self._idles(session)
        self._around.observe(Waiting(account=settings.name, idling=idling))
        if not idling:
            woken = await self.wake.wait(at_most=max(0.0, poll - now))
            mailboxes.polled_at = anyio.current_time() if not mailboxes.others else mailboxes.polled_at
            await session.noop()
            return WakeSource.OPERATOR if woken else WakeSource.POLL
        due = min(renewal, poll) if mailboxes.others else renewal
        self._idle_end = await session.idle(at_most=max(0.0, due - now), wake=self.wake)
        match self._idle_end:
            case IdleEnd.HINT:
                if session.view is not None and session.view.heard.exists:
                    self._silences = 0
                return WakeSource.PUSH
            case IdleEnd.WAKE:
                self.wake.take()
                return WakeSource.OPERATOR
            case IdleEnd.DUE:
                if due == renewal:
                    self._around.observe(IdleRenewed(account=settings.name))
                    return WakeSource.RENEWAL
                return WakeSource.POLL
            case IdleEnd.ENDED:
                if anyio.current_time() - now < SHORT_IDLE:
                    self._fail_idle("the server ends IDLE by itself", most=FAILED_IDLES)
                return WakeSource.RENEWAL
            case IdleEnd.REFUSED:
                self._fail_idle("the server refuses IDLE", most=1)
                return WakeSource.POLL

    def _idles(self, session: Session) -> bool:
        return session.can_idle and anyio.current_time() >= self._idle_again_at

    def _judge_push(self, name: MailboxName, *, silent: bool) -> None:
        """A renewal that went well shows that IDLE can be ended; one that brings news, that it keeps them back."""
        if self._idle_end is IdleEnd.DUE:
            self._idle_failures = 0
        if silent:
            self._silences += 1
            self._around.observe(IdleWasSilent(account=self.settings.name, mailbox=name.text))
            if self._silences >= MOST_SILENCES:
                self._silences = 0
                self._fail_idle("IDLE does not tell of new mail", most=1)

    def _learn_from_idle(self, failure: IdleTimedOut) -> None:
        """IDLE was not confirmed, or not ended: something on the way forgets silent connections, or IDLE is broken."""
        if self._idle_end is IdleEnd.DUE:
            self._idle_renew = max(SHORTEST_RENEW, self._idle_renew / 2)
        self._fail_idle(str(failure), most=FAILED_IDLES)

    def _fail_idle(self, reason: str, *, most: int) -> None:
        self._idle_failures += 1
        if self._idle_failures >= most:
            self._idle_failures = 0
            self._idle_again_at = anyio.current_time() + DISTRUST
            self._around.observe(IdleDistrusted(account=self.settings.name, reason=reason))

    # Telling

    def _settled(self, session: Session) -> None:
        """Every mailbox has been looked at: the account is watched, or polled where it cannot idle."""
        self.synchronized = True
        state = State.WATCHING if self._idles(session) else State.POLLING
        if state is not self.state:
            self.state = state
            self._around.observe(StateChanged(account=self.settings.name, state=state))

    def _pass_alerts_on(self, session: Session) -> None:
        alerts, session.alerts = session.alerts, []
        for text in alerts:
            self._around.observe(ServerAlert(account=self.settings.name, text=text))


class Mailboxes:
    """The mailboxes of a session: which one idles, who has a backlog, when each was looked at."""

    def __init__(self, names: Sequence[MailboxName], now: float) -> None:
        self._names = list(names)
        self.backlog: set[MailboxName] = set()
        self.examined_at = now
        self.polled_at = now

    @property
    def first(self) -> MailboxName:
        """The one that idles."""
        return self._names[0]

    @property
    def others(self) -> Sequence[MailboxName]:
        """All but the first."""
        return self._names[1:]

    def give_way(self) -> bool:
        """Let the next one idle; False where there is no other. The one that gave way is still polled."""
        if len(self._names) == 1:
            return False
        self._names.append(self._names.pop(0))
        return True

    def note(self, name: MailboxName, done: Done) -> None:
        """Remember whether a backlog was left."""
        (self.backlog.discard if done.finished else self.backlog.add)(name)


def differs(mirror: Mirror, status: MailboxStatus) -> bool:
    """Tell whether STATUS shows anything that is not mirrored; what a server does not tell counts as changed."""
    checkpoint = mirror.checkpoint
    return (
        status.uidvalidity != checkpoint.uidvalidity
        or status.uidnext != checkpoint.high
        or (checkpoint.modseq is not None and status.modseq not in (None, checkpoint.modseq))
        or status.messages != mirror.alive + len(mirror.quarantine)
        or bool(checkpoint.holes)
        or bool(mirror.parts)
        or bool(mirror.older_alive)
    )
