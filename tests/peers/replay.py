"""Fold the event log: what a reader who has nothing but the log knows of every account.

The fold is strict. Every event must say something new, and fit what the ones before it said: a message is new once,
moves from where it is, and changes only while it lives; a mailbox is made before anything is in it.
"""

from dataclasses import dataclass, field

from idlepush.sync.events import Event, EventType

Place = tuple[str, int, int]
"""Mailbox, UIDVALIDITY, UID."""


@dataclass(slots=True)
class Told:
    """One account, as the log tells of it."""

    mailboxes: dict[str, int] = field(default_factory=dict)
    """UIDVALIDITY by name."""
    places: dict[str, Place] = field(default_factory=dict)
    flags: dict[str, frozenset[str]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    whole: dict[str, bool] = field(default_factory=dict)
    ever: set[str] = field(default_factory=set)
    older: set[str] = field(default_factory=set)
    """What stood in its mailbox before it was reset, and was not found there again so far."""
    moved: int = 0


class Contradiction(AssertionError):
    """An event does not fit those before it."""


@dataclass(slots=True)
class Replay:
    """The fold, as far as it has come."""

    position: int = 0
    accounts: dict[str, Told] = field(default_factory=dict)

    def fold(self, event: Event) -> None:
        """Take in the next event.

        Raises:
            Contradiction: it does not fit.
        """
        self._claim(event.position == self.position + 1, event, f"follows position {self.position}")
        self.position = event.position
        told = self.accounts.setdefault(event.account, Told())
        if event.type.value.startswith("message."):
            self._message(told, event)
        elif event.type.value.startswith("mailbox."):
            self._mailbox(told, event)

    def _message(self, told: Told, event: Event) -> None:
        key, place = str(event.id), _place(event)
        if event.type is EventType.MESSAGE_NEW:
            self._claim(key not in told.ever, event, "is new a second time")
            self._settle(told, event, place)
            told.ever.add(key)
            told.flags[key] = _flags(event)
            told.sizes[key] = int(str(event.details["size"]))
            told.whole[key] = event.details["complete"] is True
            return
        self._claim(key in told.places, event, "is of a message that is not there")
        match event.type:
            case EventType.MESSAGE_MOVED:
                details = event.details
                before = (details["mailbox_before"], details["uidvalidity_before"], details["uid_before"])
                self._claim(told.places[key] == before, event, f"moves what stands at {told.places[key]}")
                self._claim(place != before or key in told.older, event, "moves it to where it is")
                del told.places[key]
                told.older.discard(key)
                self._settle(told, event, place)
                told.flags[key] = _flags(event)
                told.moved += 1
            case EventType.MESSAGE_FLAGS:
                self._claim(told.places[key] == place, event, f"is of what stands at {told.places[key]}")
                self._claim(told.flags[key] != _flags(event), event, "says nothing new")
                told.flags[key] = _flags(event)
            case EventType.MESSAGE_BODY:
                self._claim(not told.whole[key], event, "completes what was whole")
                told.whole[key] = bool(event.details["complete"])
            case EventType.MESSAGE_EXPUNGED:
                self._claim(told.places[key] == place, event, f"is of what stands at {told.places[key]}")
                _forget(told, key)

    def _settle(self, told: Told, event: Event, place: Place) -> None:
        self._claim(event.mailbox in told.mailboxes, event, "is in a mailbox that is not there")
        self._claim(told.mailboxes[place[0]] == place[1], event, f"but it is in {told.mailboxes[place[0]]}")
        taken = {one for key, one in told.places.items() if key not in told.older}
        self._claim(place not in taken, event, "stands where another stands")
        told.places[str(event.id)] = place

    def _mailbox(self, told: Told, event: Event) -> None:
        name, uidvalidity = str(event.mailbox), event.uidvalidity
        if event.type is EventType.MAILBOX_NEW:
            self._claim(name not in told.mailboxes, event, "is new a second time")
            assert uidvalidity is not None
            told.mailboxes[name] = uidvalidity
            return
        if event.type is EventType.MAILBOX_RENAMED:
            before = str(event.details["mailbox_before"])
            self._claim(before in told.mailboxes, event, "renames what is not there")
            self._claim(name not in told.mailboxes, event, "takes a name that is taken")
            told.mailboxes[name] = told.mailboxes.pop(before)
            self._claim(uidvalidity in (None, told.mailboxes[name]), event, f"but it is in {told.mailboxes[name]}")
            for key, place in told.places.items():
                if place[0] == before:
                    told.places[key] = (name, *place[1:])
            return
        self._claim(name in told.mailboxes, event, "is of a mailbox that is not there")
        if event.type is EventType.MAILBOX_RESET:
            # UIDVALIDITY may be the same: where UIDNEXT went back, and the messages turned out to be others.
            was = told.mailboxes[name]
            self._claim(event.details["uidvalidity_before"] == was, event, f"but it was in {was}")
            assert uidvalidity is not None
            told.mailboxes[name] = uidvalidity
            told.older |= {key for key, place in told.places.items() if place[0] == name}
        elif event.type is EventType.MAILBOX_GONE:
            del told.mailboxes[name]
            for key in [key for key, place in told.places.items() if place[0] == name]:
                _forget(told, key)

    def _claim(self, holds: bool, event: Event, what: str) -> None:
        if not holds:
            raise Contradiction(f"event {event.record()} {what}")


def _forget(told: Told, key: str) -> None:
    del told.places[key], told.flags[key], told.sizes[key], told.whole[key]
    told.older.discard(key)


def _place(event: Event) -> Place:
    assert event.mailbox is not None
    assert event.uidvalidity is not None
    assert event.uid is not None
    return event.mailbox, event.uidvalidity, event.uid


def _flags(event: Event) -> frozenset[str]:
    flags = event.details["flags"]
    assert isinstance(flags, list)
    return frozenset(map(str, flags))
