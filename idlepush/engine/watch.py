"""Watch one account: one session from login to its end, in which its mailboxes are synchronized and then waited for.

    open ─▶ ┌ read the list, when due ─ look at whatever changed ─ select the one that idles ─ wait ┐ ─▶ …
            └───────────────────────────────────── for ever ──────────────────────────────────────────┘

The first mailbox is the one that idles: the first that the configuration names, INBOX where a pattern means many. The
others are told of by NOTIFY where the server has it (`notify`), and in any case asked for by LIST-STATUS, or STATUS,
each `poll_interval` (`following`); they are looked at where that differs from what is mirrored, those that lost
messages before those that got some: a message that was moved is seen leaving before it arrives. A backlog is worked
off in turns of a few seconds, newest first, between which everybody is looked at, so that new mail never waits for
old; what one turn leaves over, the second connection takes, where the account may have one (`lane`). Every IDLE
renewal is a new EXAMINE: a full look that proves the push, or finds what it kept back.

Nothing is retried here. `Watch` outlives its sessions, because what was learned of the server (IDLE that is mute, a
window it died of) is worth keeping; `session` runs one of them and raises what ended it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import anyio

from idlepush.engine.budget import Budget
from idlepush.engine.connection import IdleEnd
from idlepush.engine.dial import Dial, dial_tcp
from idlepush.engine.following import Following
from idlepush.engine.idling import Idling
from idlepush.engine.lane import Lane
from idlepush.engine.latches import Latches
from idlepush.engine.limits import LoginLimit
from idlepush.engine.login import log_in
from idlepush.engine.looking import Looking
from idlepush.engine.moves import Moves
from idlepush.engine.notify import Notify
from idlepush.engine.observations import (
    Connected,
    Connecting,
    Disconnected,
    IdleRenewed,
    Looked,
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
from idlepush.engine.session import Session
from idlepush.engine.settings import AccountSettings
from idlepush.engine.wake import Wake
from idlepush.errors import IdleTimedOut, MailboxUnavailable, Trouble
from idlepush.imap.types import MailboxName
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Store
from idlepush.sync.events import FoundBy

TOLERANCE: Final = 0.5
"""Seconds by which a poll may come early: better than another wait for the rest."""
FEW: Final = 20
"""So many mailboxes are asked how they stand though nothing is said of them, where LIST-STATUS is missing."""
OWN_LOGINS_PER_SECOND: Final = 0.2
OWN_LOGIN_BURST: Final = 10
"""One account's own share of the host's patience: a server that drops every session is not hammered for it."""


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


@dataclass(slots=True)
class _Rounds:
    """What a session remembers from one round to the next."""

    examined_at: float = -math.inf
    """When the one that idles was examined last."""
    polled_at: float = -math.inf
    """When the list was read last."""
    told: set[MailboxName] = field(default_factory=set)
    """Those the server says have changed."""
    backlog: set[MailboxName] = field(default_factory=set)
    """Those with older messages still to be mirrored."""
    is_quiet: bool = False
    """Nothing was heard for as long as there was to wait: what is found now, nobody told of."""


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
        self._latches = Latches(settings.name, around.observe)
        self._own_logins = LoginLimit(OWN_LOGINS_PER_SECOND, OWN_LOGIN_BURST)
        self._lane_logins = LoginLimit(OWN_LOGINS_PER_SECOND, OWN_LOGIN_BURST)
        self._winner: str | None = None
        self._following = Following(settings, around.store, around.observe)
        self._notify = Notify(self._latches)
        self._idling = Idling(settings, around.observe)
        self._rounds = _Rounds()
        self._moves = Moves()
        budget = Budget(settings.name, settings.daily_bytes, store=around.store, now=around.now, observe=around.observe)
        self.lane = Lane(
            settings,
            budget=budget,
            store=around.store,
            latches=self._latches,
            open_session=lambda: self._log_in(self._lane_logins),
            memory=self._following.memory,
            ended=self.wake,
            now=around.now,
            observe=around.observe,
        )
        self._looking = Looking(
            settings,
            self._following,
            store=around.store,
            observe=around.observe,
            now=around.now,
            latches=self._latches,
            lane=self.lane,
            budget=budget,
        )

    def repair(self, mailbox: MailboxName, damaged: UidSet) -> None:
        """Compare everything of *mailbox* at the next look, which is now, and fetch *damaged* anew."""
        self._looking.repair(mailbox, damaged)
        self.wake.set()

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
            await self._beside_the_lane(session)
        except Trouble as error:
            trouble = error
            self._notify.lost(error)
            if isinstance(error, IdleTimedOut):
                self._idling.timed_out(error)
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
        session = await self._log_in(self._own_logins)
        self._winner = session.endpoint
        seconds = anyio.current_time() - begun
        self._around.observe(Connected(account=account, endpoint=session.endpoint, seconds=seconds))
        self._around.observe(Timed(account=account, phase=Phase.CONNECT, seconds=session.connect_seconds))
        self._around.observe(Timed(account=account, phase=Phase.LOGIN, seconds=session.login_seconds))
        return session

    async def _log_in(self, own: LoginLimit) -> Session:
        await own.admit(self.settings.name)
        return await log_in(
            self.settings,
            self._around.environment,
            limit=self._around.logins,
            dial=self._around.dial,
            winner=self._winner,
            without=self._latches.forgone,
        )

    async def _beside_the_lane(self, session: Session) -> None:
        """Watch, with the lane at hand; what ends the watching is raised as it is, not in a group."""
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.lane.run)
            try:
                await self._watch(session)
            except Exception as error:
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _watch(self, session: Session) -> None:
        self._rounds = _Rounds()
        if self.settings.maildir is not None:
            self._around.tell_delimiter(self.settings.name, await session.delimiter())
        source = WakeSource.RECONNECT
        while not self._stopping:
            self._around.observe(Woken(account=self.settings.name, source=source))
            await self._round(session, source)
            self._pass_alerts_on(session)
            self._settled(session)
            if not self._rounds.backlog:
                source = await self._wait(session)
            else:
                # The next turn is no reconnect any more: all flags were compared, all others asked.
                source = self._woken_by() if self.wake.take() else WakeSource.POLL

    async def _round(self, session: Session, source: WakeSource) -> None:
        """Bring everything that changed up to its server, and have the one that idles selected in the end."""
        following, rounds = self._following, self._rounds
        self._forget_moves()
        # What was heard speaks of the mailbox as it is selected: it is looked into before another one is.
        has_looked = source is WakeSource.PUSH or self._has_hints(session)
        if has_looked:
            await self._look_at(session, following.first, source)
        names_changed = await self._take_hints(session)
        is_due = names_changed or self._is_poll_due(source) or self._may_be_elsewhere(session)
        if is_due:
            await self._read(session)
        fallen, others = await self._changed(polled=is_due)
        first = [following.first]
        if has_looked or (source is WakeSource.NOTIFY and (fallen or others)):
            first = []
        order = [*first, *fallen, *others] if self._has_hints(session) else [*fallen, *first, *others]
        for name in order:
            await self._look_at(session, name, source)
            if self._stopping:
                return
        if not is_due and self._may_be_elsewhere(session):
            await self._read(session)
            fallen, others = await self._changed(polled=True)
            for name in (*fallen, *others):
                await self._look_at(session, name, source)
        rounds.is_quiet = False
        if _selected(session) != following.first and not rounds.backlog:
            await self._look_at(session, following.first, WakeSource.POLL)
        await self._settle_moves()

    def _forget_moves(self) -> None:
        """Begin with nothing leaving; what a lost session left unsettled stands in the mirror still."""
        for name in self._moves.mailboxes:
            self._following.memory(name).mirror = None
        self._moves = Moves()

    def _may_be_elsewhere(self, session: Session) -> bool:
        """What has left a mailbox may be in one that nobody told of; worth asking where it is asked for cheaply."""
        return bool(self._moves) and ("LIST-STATUS" in session.capabilities or len(self._following.names) <= FEW)

    async def _settle_moves(self) -> None:
        """Expunge what has left one mailbox and turned up in no other."""
        for name, expunged in await self._moves.settle(self._around.store, self.settings.name):
            self._following.memory(name).mirror = None  # what was moved has left it as well
            self._around.observe(
                Looked(
                    account=self.settings.name, mailbox=name.text, source=WakeSource.POLL, seconds=0, expunged=expunged
                )
            )

    # What is to be looked at

    def _has_hints(self, session: Session) -> bool:
        view = session.view
        return view is not None and bool(view.heard) and view.mailbox == self._following.first

    def _is_poll_due(self, source: WakeSource) -> bool:
        if source in (WakeSource.RECONNECT, WakeSource.OPERATOR, WakeSource.BACKLOG):
            return True
        late = anyio.current_time() - (self._rounds.polled_at + self.settings.poll_interval - TOLERANCE)
        # News goes first, but does not put it off for ever.
        patience = self.settings.poll_interval if source in (WakeSource.PUSH, WakeSource.NOTIFY) else 0.0
        return late >= patience

    async def _take_hints(self, session: Session) -> bool:
        """Note which mailboxes the server says have changed; True where it says that names have."""
        if not session.elsewhere:
            return False
        hints = session.elsewhere.take()
        if hints.overflowed:
            self._notify.overflowed()
        for name, said in hints.told.items():
            self._notify.heard()
            if name in self._following.names and await self._following.told(name, said, unasked=True):
                self._rounds.told.add(name)
        return hints.listing or hints.overflowed

    async def _read(self, session: Session) -> None:
        """Read the list: told of what comes from here on, first; so nothing falls between the two."""
        self._rounds.polled_at = anyio.current_time()
        if self._following.names:
            await self._be_told(session)
        await self._following.read(session)
        await self._be_told(session)

    async def _be_told(self, session: Session) -> None:
        """Keep NOTIFY on where it is of use; what it says of the mailboxes by the way is taken in."""
        names, before = self._following.names, self._notify.names
        if not self._idling.is_used(session):
            names = ()  # only beside IDLE does it tell at once
        missed = []
        for name, said in (await self._notify.keep(session, names)).items():
            if name in names and await self._following.told(name, said):
                self._rounds.told.add(name)
                if name in before and name != self._following.first and await self._following.has_news(name):
                    missed.append(name)
        if self._rounds.is_quiet:
            self._notify.missed(missed)

    async def _changed(self, *, polled: bool) -> tuple[Sequence[MailboxName], Sequence[MailboxName]]:
        """Return the other mailboxes that are to be looked at: those that lost messages, and the rest."""
        following, rounds = self._following, self._rounds
        fallen: list[MailboxName] = []
        others: list[MailboxName] = []
        missed: list[MailboxName] = []
        for name in following.names:
            if name == following.first or following.is_parked(name):
                continue
            found = polled and following.answers(name)
            found = found and (
                await following.has_changed(name, self._around.now()) or await self._looking.is_audit_due(name)
            )
            if not (found or name in rounds.told or name in rounds.backlog):
                continue
            (fallen if await following.has_fallen(name) else others).append(name)
            if name not in rounds.told and name in self._notify.names and await following.has_news(name):
                missed.append(name)
        if polled and rounds.is_quiet:
            self._notify.missed(missed)
        return fallen, others

    # Looking

    async def _look_at(self, session: Session, name: MailboxName, source: WakeSource) -> None:
        """Look at one mailbox; where the one that idles cannot be had, the next one takes its place.

        Raises:
            MailboxUnavailable: it cannot be had, and there is no other.
        """
        is_first, now, rounds = name == self._following.first, anyio.current_time(), self._rounds
        if not is_first and source is not WakeSource.RECONNECT:
            source = WakeSource.NOTIFY if name in rounds.told else WakeSource.POLL
        rounds.told.discard(name)
        is_fresh = source is not WakeSource.PUSH or _selected(session) != name
        pushed = session.view is not None and session.view.heard.exists
        try:
            done = await self._looking.look(
                session,
                name,
                source,
                fresh=is_fresh,
                told_by=FoundBy.PUSH if self._idling.is_used(session) else FoundBy.POLL,
                moves=self._moves if len(self._following.names) > 1 else None,
            )
        except MailboxUnavailable as unavailable:
            rounds.backlog.discard(name)
            await self._following.lost(session, name, unavailable)
            if is_first and not self._following.give_way():
                raise
            return
        await self._following.looked_at(name)
        is_left = not (done.finished or done.waits) and not self.lane.take(name, done.remaining)
        (rounds.backlog.add if is_left else rounds.backlog.discard)(name)
        if is_first and is_fresh:
            rounds.examined_at = now
        if is_first and source is WakeSource.RENEWAL:
            self._idling.renewed(name, silent=done.new > 0 and not pushed)

    # Waiting

    async def _wait(self, session: Session) -> WakeSource:
        """Wait for the server, an operator or the time; say which it was."""
        idles = self._idling.is_used(session)
        notified = idles and self._notify.due_at is not None
        self._around.observe(Waiting(account=self.settings.name, idling=idles, notified=notified))
        if not idles:
            return await self._wait_for_poll(session)
        while True:
            now = anyio.current_time()
            source, due_at = min(self._due(), key=lambda one: one[1])
            self._idling.began()
            end = await session.idle(at_most=max(0.0, due_at - now), wake=self.wake)
            heard_new = session.view is not None and session.view.heard.exists
            self._idling.ended(end, lasted=anyio.current_time() - now, heard_new=heard_new)
            match end:
                case IdleEnd.HINT:
                    return WakeSource.PUSH if self._has_hints(session) else WakeSource.NOTIFY
                case IdleEnd.WAKE:
                    self.wake.take()
                    return self._woken_by()
                case IdleEnd.ENDED:
                    return WakeSource.RENEWAL
                case IdleEnd.REFUSED:
                    return WakeSource.POLL
                case IdleEnd.DUE if source is WakeSource.NOTIFY:
                    self._rounds.is_quiet = True
                    await self._be_told(session)
                    if self._has_hints(session) or session.elsewhere or self._rounds.told:
                        return WakeSource.PUSH if self._has_hints(session) else WakeSource.NOTIFY
                case IdleEnd.DUE:
                    self._rounds.is_quiet = True
                    if source is WakeSource.RENEWAL:
                        self._around.observe(IdleRenewed(account=self.settings.name))
                    return source

    def _due(self) -> Iterator[tuple[WakeSource, float]]:
        """Yield what is to be done at what time."""
        yield WakeSource.RENEWAL, self._rounds.examined_at + self._idling.renew
        if not self._following.is_alone:
            yield WakeSource.POLL, self._rounds.polled_at + self.settings.poll_interval
        if self._notify.due_at is not None:
            yield WakeSource.NOTIFY, self._notify.due_at

    async def _wait_for_poll(self, session: Session) -> WakeSource:
        due_at = self._rounds.polled_at + self.settings.poll_interval
        woken = await self.wake.wait(at_most=max(0.0, due_at - anyio.current_time()))
        await session.noop()
        return self._woken_by() if woken else WakeSource.POLL

    def _woken_by(self) -> WakeSource:
        """Tell who woke: what the lane has let go of is to be looked at, by a poll as an operator's is."""
        let_go = self.lane.take_let_go() & set(self._following.names)
        self._rounds.backlog |= let_go
        return WakeSource.BACKLOG if let_go else WakeSource.OPERATOR

    # Telling

    def _settled(self, session: Session) -> None:
        """Every mailbox has been looked at: the account is watched, or polled where it cannot idle."""
        self.synchronized = True
        state = State.WATCHING if self._idling.is_used(session) else State.POLLING
        if state is not self.state:
            self.state = state
            self._around.observe(StateChanged(account=self.settings.name, state=state))

    def _pass_alerts_on(self, session: Session) -> None:
        alerts, session.alerts = session.alerts, []
        for text in alerts:
            self._around.observe(ServerAlert(account=self.settings.name, text=text))


def _selected(session: Session) -> MailboxName | None:
    return None if session.view is None else session.view.mailbox
