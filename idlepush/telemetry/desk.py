"""The alert desk: who is to be told what, and when. Pure: transitions and moments come in, alerts go out.

    unwell ─ grace ─▶ told ─────── well ─ stays so ─▶ told of the end, once all of the same alert are back
       └──── well ──▶ forgotten: nobody need know

    one host      what is in trouble there goes into one alert, with those that are about to be due
    cooldown      between two alerts about troubles at one host; an end is told without delay
    many hosts    more than three that are due at once make one alert: it is the network here, or the disk
    not sent      whoever could not be told is due again after a pause that grows; by then it may be over

Nothing here knows how an alert is sent. One that `due` returned is in flight until `settle` says what became of it;
meanwhile its accounts are in no other. Moments are seconds of a clock that never goes back.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from idlepush.errors import FailureClass

STAYS_WELL: Final = 30.0
"""Seconds an account has to stay well, at most, before its trouble counts as over; less where `grace` is less."""
STRAGGLERS: Final = 360.0
"""Seconds that those who are back wait for the others of their alert: longer than any backoff without a throttle."""
MOST_ALERTS: Final = 3
FIRST_PAUSE: Final = 60.0


class Kind(StrEnum):
    """What an alert tells."""

    TROUBLE = "trouble"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One account in an alert: how long its trouble has lasted, or had, and what it is."""

    account: str
    host: str
    seconds: float
    failure_class: FailureClass | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something to tell people."""

    number: int
    kind: Kind
    cases: tuple[Case, ...]

    @property
    def hosts(self) -> Sequence[str]:
        """The hosts it is about."""
        return list(dict.fromkeys(case.host for case in self.cases))


@dataclass(slots=True)
class _Trouble:
    host: str
    began: float
    failure_class: FailureClass | None = None
    reason: str = ""
    ended: float | None = None
    again: float | None = None
    """When it was unwell again, after an end that may be on its way to people."""
    alert: int | None = None
    """The number of the alert that told of it; None where none did."""
    in_flight: bool = False

    def case(self, account: str, at: float) -> Case:
        return Case(
            account=account,
            host=self.host,
            seconds=(at if self.ended is None else self.ended) - self.began,
            failure_class=self.failure_class,
            reason=self.reason,
        )


@dataclass(slots=True)
class _Host:
    free_at: float = -math.inf
    """No alert about a trouble before: the cooldown."""
    again_at: float = -math.inf
    """No alert at all before: the last one could not be sent."""
    pause: float = FIRST_PAUSE


_Group = list[tuple[str, _Trouble]]


class Desk:
    """Keeps the open troubles, and decides. `grace` and `cooldown` are seconds."""

    def __init__(self, *, grace: float, cooldown: float) -> None:
        self._grace = grace
        self._cooldown = cooldown
        self._stays_well = min(grace, STAYS_WELL)
        self._troubles: dict[str, _Trouble] = {}
        self._hosts: dict[str, _Host] = {}
        self._numbers = 0

    # What happens

    @property
    def open(self) -> Sequence[str]:
        """The accounts whose trouble is not done with."""
        return list(self._troubles)

    def unwell(self, account: str, host: str, at: float, failure_class: FailureClass | None, reason: str) -> None:
        """Take in that *account* is in trouble: a new one, or still, or again before its end was told."""
        trouble = self._troubles.setdefault(account, _Trouble(host, at))
        if trouble.ended is not None:
            trouble.ended, trouble.again = None, at
        trouble.failure_class, trouble.reason = failure_class, reason

    def well(self, account: str, at: float) -> None:
        """Take in that *account* is well; an end that nobody was told the beginning of is no news."""
        trouble = self._troubles.get(account)
        if trouble is None:
            return
        if trouble.alert is None and not trouble.in_flight:
            del self._troubles[account]
        elif trouble.ended is None:
            trouble.ended = at

    def forget(self, account: str) -> bool:
        """Let go of *account*: it was paused or removed. Return whether people were told of a trouble of it."""
        trouble = self._troubles.pop(account, None)
        return trouble is not None and trouble.alert is not None

    def restore(self, told: Alert, at: float) -> None:
        """Take in that people were *told* so, at a moment that may lie before the clock's beginning."""
        for case in told.cases:
            self._troubles[case.account] = _Trouble(
                case.host, at - case.seconds, case.failure_class, case.reason, alert=told.number
            )
            host = self._host(case.host)
            host.free_at = max(host.free_at, at + self._cooldown)
        self._numbers = max(self._numbers, told.number)

    # What is to be told

    def due(self, at: float) -> Sequence[Alert]:
        """Return what is to be told now."""
        by_host: dict[str, _Group] = {}
        for account, trouble in self._troubles.items():
            if not trouble.in_flight:
                by_host.setdefault(trouble.host, []).append((account, trouble))
        hosts = [host for host in by_host if at >= self._host(host).again_at]
        back = self._over(at)
        resolved = [[one for one in by_host[host] if one[0] in back] for host in hosts]
        begun = [self._ripe(by_host[host], at) for host in hosts if at >= self._host(host).free_at]
        return [*self._alerts(Kind.RESOLVED, resolved, at), *self._alerts(Kind.TROUBLE, begun, at)]

    def settle(self, alert: Alert, at: float, *, sent: bool) -> None:
        """Take in what became of *alert*."""
        for host in map(self._host, alert.hosts):
            if not sent:
                host.again_at = at + host.pause
                host.pause = min(2 * host.pause, max(self._cooldown, FIRST_PAUSE))
                continue
            host.pause = FIRST_PAUSE
            if alert.kind is Kind.TROUBLE:
                host.free_at = at + self._cooldown
        for case in alert.cases:
            trouble = self._troubles.get(case.account)
            if trouble is None or not trouble.in_flight:
                continue  # it was forgotten meanwhile
            trouble.in_flight = False
            if sent and alert.kind is Kind.TROUBLE:
                trouble.alert = alert.number
            elif self._is_done(trouble, alert, sent=sent):
                del self._troubles[case.account]

    @staticmethod
    def _is_done(trouble: _Trouble, alert: Alert, *, sent: bool) -> bool:
        if trouble.ended is None:
            # It is in trouble again. What was told to be over begins anew, and has to be told anew.
            if sent and alert.kind is Kind.RESOLVED:
                trouble.alert, trouble.began = None, trouble.again or trouble.began
            return False
        return sent or trouble.alert is None

    def _ripe(self, group: _Group, at: float) -> _Group:
        """Return those to be told of: once one is due, those that soon will be go with it."""
        untold = [(account, one) for account, one in group if one.alert is None and one.ended is None]
        if not any(at - one.began >= self._grace for _, one in untold):
            return []
        return [(account, one) for account, one in untold if at - one.began >= self._grace / 2]

    def _over(self, at: float) -> set[str]:
        """Return those whose end is to be told: all of an alert together, or those that waited long enough."""
        by_alert: dict[int, _Group] = {}
        for account, trouble in self._troubles.items():
            if trouble.alert is not None:
                by_alert.setdefault(trouble.alert, []).append((account, trouble))
        over: set[str] = set()
        for group in by_alert.values():
            back = {
                account: one.ended
                for account, one in group
                if one.ended is not None and at - one.ended >= self._stays_well
            }
            if back and (len(back) == len(group) or at - min(back.values()) >= STRAGGLERS):
                over |= back.keys()
        return over

    def _alerts(self, kind: Kind, groups: Iterable[_Group], at: float) -> Sequence[Alert]:
        groups = [group for group in groups if group]
        if len(groups) > MOST_ALERTS:
            groups = [[one for group in groups for one in group]]
        return [self._alert(kind, group, at) for group in groups]

    def _alert(self, kind: Kind, group: _Group, at: float) -> Alert:
        self._numbers += 1
        for _, trouble in group:
            trouble.in_flight = True
        return Alert(number=self._numbers, kind=kind, cases=tuple(trouble.case(name, at) for name, trouble in group))

    def _host(self, host: str) -> _Host:
        return self._hosts.setdefault(host, _Host())
