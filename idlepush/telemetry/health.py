"""Health: what the observations add up to, for each account and for the service.

A pure fold. It asks nobody: whatever `status`, `health`, the HTTP interface, alerts and systemd show is the same
folded value, and the same observations at the same moments give the same value.

What is wrong with an account is a list of findings, each with a score and a sentence; the worst one decides.

    score  finding                                                            until
      100  all is well; also at the first start, and while paused
       90  polled, because the server has no IDLE                             it is watched
       85  polled, because IDLE does not work here                            it is watched
       85  the server has an [ALERT] for its user                             a day has passed
       80  messages could not be had and were set aside                       a day has passed without a new try
    -- below 80: warning ---------------------------------------------------------------------------------------------
       75  reconnecting at once, after a session that was of use              it is watched or polled again
       70  a sink takes no events; the mirror goes on                         it takes them again
       60  a mailbox cannot be looked at, the others can                      it could, or there is a new session
       50  a bug ended a session                                              an hour has passed without another
    -- below 40: critical --------------------------------------------------------------------------------------------
       30  throttled: the server wants to be left alone                       it is watched or polled again
       20  backing off: no session can be had, or it is of no use             it is watched or polled again
       10  the store cannot be written                                        it is watched or polled again
       10  silent: nothing was looked at for far too long                     something was looked at
        0  parked: a person has to change something                           it is watched or polled again

A trouble ends when a synchronize has succeeded, not when one is tried: an account that starts again after it was
parked, or connects and is thrown out, is as unwell as before. So a flapping server makes one trouble, not many.

Silence is the one thing that no observation tells; `tick`, called now and then, finds it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeVar

from idlepush.engine.observations import (
    Audited,
    Backfilling,
    BugFound,
    Connected,
    ConnectFailed,
    Feature,
    FeatureDistrusted,
    IdleDistrusted,
    Looked,
    MailboxGone,
    MailboxRenamed,
    MailboxTrouble,
    Mirrored,
    Observation,
    Quarantined,
    Restarting,
    ServerAlert,
    SinkReady,
    SinkStopped,
    SinkTrouble,
    State,
    StateChanged,
    StoreTrouble,
    Waiting,
    WakeSource,
)
from idlepush.errors import FailureClass
from idlepush.sync.events import Json, rfc3339
from idlepush.telemetry.text import printable

Key = TypeVar("Key")
Value = TypeVar("Value")

HEALTHY_FROM: Final = 80
WARNING_FROM: Final = 40
SHORT_PAUSE: Final = 30.0
"""A pause of at most so many seconds after a session that was of use is a reconnect, and no trouble yet."""
BUG_HELD: Final = timedelta(hours=1)
ALERT_HELD: Final = timedelta(days=1)
DISTRUST_HELD: Final = timedelta(days=1)
QUARANTINE_HELD: Final = timedelta(hours=25)
"""What is set aside is tried again within a day: longer ago than this, it was had or is gone."""
MOST_HELD: Final = 1000
"""Messages set aside and mailboxes in trouble that are told apart, for each account."""
SENTENCE: Final = 500

_AT_WORK: Final = frozenset({State.WATCHING, State.POLLING})
_IN_TROUBLE: Final = frozenset({State.THROTTLED, State.BACKING_OFF, State.PARKED})


class Level(StrEnum):
    """`health`, as `contract.md` names it."""

    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"

    @classmethod
    def of(cls, score: int) -> "Level":
        """Return the level that a score belongs to."""
        if score >= HEALTHY_FROM:
            return cls.HEALTHY
        return cls.WARNING if score >= WARNING_FROM else cls.CRITICAL


@dataclass(frozen=True, slots=True)
class LastError:
    """The last failure of an account; outlives its end."""

    time: datetime
    failure_class: FailureClass
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountHealth:
    """How one account stands. `mailboxes` and `messages` are None where only the store knows."""

    account: str
    state: State
    since: datetime
    failure_class: FailureClass | None = None
    reason: str | None = None
    health: Level = Level.HEALTHY
    health_score: int = 100
    reasons: tuple[str, ...] = ()
    """A sentence for each finding, the worst first; empty where all is well."""
    mailboxes: int | None = None
    messages: int | None = None
    watch: str | None = None
    """How the last wait went about it: notify, idle or poll; None where nothing is watched."""
    backfill_remaining: int = 0
    backfill_eta: float | None = None
    """Seconds until the backlog is in, at the pace so far; None without a backlog, or before its pace is known."""
    last_push: datetime | None = None
    last_poll: datetime | None = None
    """The last look that was not for a push: at a poll, a renewal, a reconnect, or because an operator said so."""
    last_commit: datetime | None = None
    last_look: datetime | None = None
    last_audit: datetime | None = None
    """When everything of one of its mailboxes was compared last."""
    throttled_until: datetime | None = None
    """When the next try is, while throttled."""
    unwell_since: datetime | None = None
    """When the account ceased to be healthy; None while it is."""
    last_error: LastError | None = None

    def record(self, running: bool) -> dict[str, Json]:  # noqa: FBT001 - it is the key of that name
        """The line as `status --json` and the HTTP interface show it."""
        return {
            "account": self.account,
            "state": self.state.value,
            "since": rfc3339(self.since),
            "class": self.failure_class.value if self.failure_class else None,
            "reason": self.reason,
            "health": self.health.value,
            "health_score": self.health_score,
            "mailboxes": self.mailboxes,
            "messages": self.messages,
            "watch": self.watch,
            "backfill_remaining": self.backfill_remaining,
            "backfill_eta_seconds": None if self.backfill_eta is None else round(self.backfill_eta),
            "last_push": rfc3339(self.last_push),
            "last_poll": rfc3339(self.last_poll),
            "last_commit": rfc3339(self.last_commit),
            "last_audit": rfc3339(self.last_audit),
            "throttled_until": rfc3339(self.throttled_until),
            "running": running,
        }

    def health_record(self) -> dict[str, Json]:
        """The line as `health --json` shows it."""
        return {
            "account": self.account,
            "score": self.health_score,
            "health": self.health.value,
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceHealth:
    """All accounts together: as well as the one that is worst."""

    health: Level
    health_score: int
    states: Mapping[State, int]
    """How many accounts stand so; every state is there."""
    levels: Mapping[Level, int]

    @classmethod
    def of(cls, accounts: Sequence[AccountHealth]) -> "ServiceHealth":
        """Add *accounts* up; none at all is well."""
        score = min((one.health_score for one in accounts), default=100)
        states = Counter(one.state for one in accounts)
        levels = Counter(one.health for one in accounts)
        return cls(
            health=Level.of(score),
            health_score=score,
            states=MappingProxyType({state: states[state] for state in State}),
            levels=MappingProxyType({level: levels[level] for level in Level}),
        )


Transition = Callable[[str, Level, Level, AccountHealth], None]
"""Called with the account, its health before, its health after, and all of how it stands now."""

Finding = tuple[int, str]


@dataclass(slots=True)
class _Account:
    """What is remembered of one account: facts and when they were seen, nothing judged."""

    since: datetime
    state: State = State.STARTING
    failure_class: FailureClass | None = None
    reason: str | None = None
    failed: bool = False
    """The last session was of no use, or none could be had."""
    trouble: State | None = None
    """The troubled state it was in last; kept through a new start, until a synchronize succeeds."""
    delay: float = 0.0
    store_trouble: str | None = None
    """What the store said, until the state that comes of it."""
    store_reason: str | None = None
    idle_reason: str | None = None
    distrusted: dict[Feature, tuple[datetime, str]] = field(default_factory=dict)
    """Features that the server was caught lying about: when, and how."""
    bug_at: datetime | None = None
    alert: tuple[datetime, str] | None = None
    quarantined: dict[tuple[str, int], datetime] = field(default_factory=dict)
    mailbox_troubles: dict[str, str] = field(default_factory=dict)
    sink_troubles: dict[str, str] = field(default_factory=dict)
    looked: set[str] = field(default_factory=set)
    watch: str | None = None
    remaining: dict[str, int] = field(default_factory=dict)
    etas: dict[str, float] = field(default_factory=dict)
    looked_at: datetime | None = None
    last_push: datetime | None = None
    last_poll: datetime | None = None
    last_commit: datetime | None = None
    last_audit: datetime | None = None
    throttled_until: datetime | None = None
    unwell_since: datetime | None = None
    last_error: LastError | None = None
    longest_silence: timedelta | None = None

    def findings(self, now: datetime) -> Iterator[Finding]:
        """Yield what is wrong at *now*, in no order."""
        if self.state is State.PAUSED:
            return
        yield from self._of_its_state()
        if self._is_silent(now):
            yield 10, "nothing was looked at for far too long"
        if self.bug_at is not None and now - self.bug_at < BUG_HELD:
            yield 50, "a bug ended a session; the log has its traceback"
        for sink, reason in self.sink_troubles.items():
            yield 70, f"nothing is delivered to its {sink}: {reason}"
        for mailbox, reason in self.mailbox_troubles.items():
            yield 60, f"the mailbox {mailbox} cannot be looked at: {reason}"
        if set_aside := sum(now - at < QUARANTINE_HELD for at in self.quarantined.values()):
            yield 80, "1 message was set aside" if set_aside == 1 else f"{set_aside} messages were set aside"
        if self.alert is not None and now - self.alert[0] < ALERT_HELD:
            yield 85, f"the server says: {self.alert[1]}"
        for feature, (at, reason) in self.distrusted.items():
            if now - at < DISTRUST_HELD:
                yield 95, f"{feature} is not used: {reason}"

    def _of_its_state(self) -> Iterator[Finding]:
        if self.state is State.POLLING:
            yield (85, f"polled: {self.idle_reason}") if self.idle_reason else (90, "polled: the server has no IDLE")
        if self.trouble is None:
            return
        reason = f": {self.last_error.reason}" if self.last_error and self.last_error.reason else ""
        if self.store_reason is not None:
            yield 10, f"the store cannot be written: {self.store_reason}"
        elif self.trouble is State.PARKED:
            yield 0, f"parked{reason}"
        elif self.trouble is State.THROTTLED:
            yield 30, f"throttled{reason}"
        elif self.failed or self.delay > SHORT_PAUSE:
            yield 20, f"backing off{reason}"
        else:
            yield 75, f"reconnecting{reason}"

    def _is_silent(self, now: datetime) -> bool:
        if self.longest_silence is None or self.state in _IN_TROUBLE:
            return False
        return now - max(self.since, self.looked_at or self.since) > self.longest_silence


class Health:
    """The fold: a reader of observations that knows how every account stands. `now` is the wall clock."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._facts: dict[str, _Account] = {}
        self._judged: dict[str, AccountHealth] = {}
        self._listeners: list[Transition] = []

    # What is known

    @property
    def accounts(self) -> Mapping[str, AccountHealth]:
        """How each account stands; the mapping lives on, the values do not change."""
        return MappingProxyType(self._judged)

    @property
    def service(self) -> ServiceHealth:
        """How all of them stand together."""
        return ServiceHealth.of(list(self._judged.values()))

    def on_transition(self, listener: Transition) -> None:
        """Have *listener* called whenever an account's health becomes another; it must not wait, nor raise."""
        self._listeners.append(listener)

    # What is done with it

    def expect(self, account: str, *, looks_every: float) -> None:
        """Say how many seconds may lie between two looks at *account*: twice that is silence."""
        self._of(account).longest_silence = timedelta(seconds=2 * looks_every + 120)
        self._judge(account)

    def forget(self, account: str) -> None:
        """Know nothing of *account* any more: it was removed, and its loop has ended. That is no transition."""
        self._facts.pop(account, None)
        self._judged.pop(account, None)

    def tick(self) -> None:
        """Judge every account anew: time alone may have changed it."""
        for account in [*self._facts]:
            self._judge(account)

    def __call__(self, seen: Observation) -> None:
        """Take one observation in."""
        if self._fold(self._of(seen.account), seen):
            self._judge(seen.account)

    # The fold

    def _of(self, account: str) -> _Account:
        facts = self._facts.get(account)
        if facts is None:
            facts = self._facts[account] = _Account(since=self._now())
        return facts

    def _fold(self, facts: _Account, seen: Observation) -> bool:  # noqa: C901, PLR0912, PLR0915 - a case for each fact
        """Remember what *seen* says; False where it says nothing of health."""
        match seen:
            case StateChanged():
                self._stand(facts, seen)
            case Connected():
                # A new session chooses its mailboxes anew; what is wrong with one will be seen again.
                facts.mailbox_troubles.clear()
            case ConnectFailed():
                facts.failed = True
            case Restarting():
                facts.delay = seen.delay
                if facts.state is State.THROTTLED:
                    facts.throttled_until = self._now() + timedelta(seconds=seen.delay)
            case StoreTrouble():
                facts.store_trouble = printable(seen.reason, most=SENTENCE)
            case BugFound():
                facts.bug_at = self._now()
            case Looked():
                self._look(facts, seen)
            case Mirrored():
                facts.last_commit = self._now()
            case Audited():
                facts.last_audit = self._now()
            case Backfilling():
                _keep(facts.remaining, seen.mailbox, seen.remaining)
                if seen.eta is not None:
                    facts.etas[seen.mailbox] = seen.eta
            case MailboxGone(mailbox=mailbox) | MailboxRenamed(before=mailbox):
                facts.looked.discard(mailbox)
                facts.remaining.pop(mailbox, None)
                facts.mailbox_troubles.pop(mailbox, None)
            case MailboxTrouble():
                facts.looked.discard(seen.mailbox)
                facts.remaining.pop(seen.mailbox, None)
                _hold(facts.mailbox_troubles, seen.mailbox, printable(seen.reason, most=SENTENCE))
            case Quarantined():
                _hold(facts.quarantined, (seen.mailbox, seen.uid), self._now())
            case IdleDistrusted():
                facts.idle_reason = printable(seen.reason, most=SENTENCE)
            case FeatureDistrusted():
                facts.distrusted[seen.feature] = (self._now(), printable(seen.reason, most=SENTENCE))
            case SinkTrouble():
                facts.sink_troubles[seen.sink] = printable(seen.reason, most=SENTENCE)
            case SinkReady() | SinkStopped():
                if facts.sink_troubles.pop(seen.sink, None) is None:
                    return False
            case Waiting():
                watch = "notify" if seen.notified else "idle" if seen.idling else "poll"
                if watch == facts.watch:
                    return False
                facts.watch = watch
            case ServerAlert():
                facts.alert = (self._now(), printable(seen.text, most=SENTENCE))
            case _:
                return False
        return True

    def _stand(self, facts: _Account, seen: StateChanged) -> None:
        if seen.state is not facts.state:
            facts.since = self._now()
            facts.throttled_until = None
        facts.state = seen.state
        facts.failure_class = seen.failure_class
        facts.reason = printable(seen.reason, most=SENTENCE) if seen.reason is not None else None
        if seen.state in _IN_TROUBLE:
            facts.trouble, facts.watch = seen.state, None
            facts.store_reason, facts.store_trouble = facts.store_trouble, None
            failure_class = seen.failure_class or FailureClass.OTHER
            facts.last_error = LastError(self._now(), failure_class, facts.reason or "")
        elif seen.state is not State.STARTING:
            facts.trouble, facts.failed, facts.delay, facts.store_reason = None, False, 0.0, None
        if seen.state is State.WATCHING:
            facts.idle_reason = None

    def _look(self, facts: _Account, seen: Looked) -> None:
        facts.looked_at = now = self._now()
        if seen.source in (WakeSource.PUSH, WakeSource.NOTIFY):
            facts.last_push = now
        else:
            facts.last_poll = now
        if seen.new or seen.moved or seen.flags or seen.expunged:
            facts.last_commit = now
        facts.looked.add(seen.mailbox)
        facts.mailbox_troubles.pop(seen.mailbox, None)
        _keep(facts.remaining, seen.mailbox, seen.remaining)

    # The judgement

    def _judge(self, account: str) -> None:
        facts, now = self._facts[account], self._now()
        findings = sorted(facts.findings(now), key=lambda finding: finding[0])
        score = findings[0][0] if findings else 100
        after = Level.of(score)
        known = self._judged.get(account)
        before = known.health if known else Level.HEALTHY
        if after is Level.HEALTHY:
            facts.unwell_since = None
        elif facts.unwell_since is None:
            facts.unwell_since = now
        judged = self._judged[account] = AccountHealth(
            account=account,
            state=facts.state,
            since=facts.since,
            failure_class=facts.failure_class,
            reason=facts.reason,
            health=after,
            health_score=score,
            reasons=tuple(sentence for _, sentence in findings),
            mailboxes=len(facts.looked) + len(facts.mailbox_troubles) if facts.looked_at else None,
            watch=facts.watch,
            backfill_remaining=sum(facts.remaining.values()),
            backfill_eta=_together(facts),
            last_push=facts.last_push,
            last_poll=facts.last_poll,
            last_commit=facts.last_commit,
            last_look=facts.looked_at,
            last_audit=facts.last_audit,
            throttled_until=facts.throttled_until,
            unwell_since=facts.unwell_since,
            last_error=facts.last_error,
        )
        if before is not after:
            for listener in self._listeners:
                listener(account, before, after, judged)


def _together(facts: _Account) -> float | None:
    """Return how long all backlogs take, one after the other, as far as their pace is known."""
    etas = [facts.etas[mailbox] for mailbox in facts.remaining if mailbox in facts.etas]
    return sum(etas) if etas else None


def _keep(remaining: dict[str, int], mailbox: str, count: int) -> None:
    """Remember how much of a backlog is left; none is not worth an entry."""
    if count:
        remaining[mailbox] = count
    else:
        remaining.pop(mailbox, None)


def _hold(held: dict[Key, Value], key: Key, value: Value) -> None:
    """Remember *value* as the newest; the oldest goes where there are too many."""
    held.pop(key, None)
    held[key] = value
    if len(held) > MOST_HELD:
        del held[next(iter(held))]
