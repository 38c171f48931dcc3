"""What the other clients of an account do: random acts from a seed, written down as they happen."""

import imaplib
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from tests.live.histories.pictures import close, names_on, wire
from tests.peers.mails import mails

WORDS: Final = ("Work", "Entwürfe", "a b", "台北 & more", "Archive", "2024")
MOST_MAILBOXES: Final = 8
_FLAGS: Final = ("\\Seen", "\\Flagged", "\\Answered", "\\Deleted", "\\Draft", "$Work", "Later")
_BEGINNING: Final = datetime(2020, 1, 1, tzinfo=UTC)


class Server(Protocol):
    """What a server must let its clients do: `Dovecot`, `PymapServer`."""

    def imap(self, user: str) -> imaplib.IMAP4:
        """Log in."""
        ...

    def deliver(self, user: str, raw: bytes, /) -> object:
        """Put a message into INBOX the way a stranger's mail comes."""
        ...


class Client:
    """All of an account's other clients in one: `act` does the next thing.

    `diary` holds what was done, a line for each act, so that a history that went wrong can be read. The same seed
    does the same things again, on the same kind of server.
    """

    def __init__(
        self,
        server: Server,
        account: str,
        *,
        seed: str,
        delimiter: str,
        bump: Callable[[str, str, int], object] | None = None,
    ) -> None:
        """Take a server, and the way to give a mailbox another UIDVALIDITY where there is one."""
        self.account = account
        self.diary: list[str] = []
        self.moves = 0
        self._server = server
        self._dice = random.Random(seed)
        self._delimiter = delimiter
        self._bump = bump
        self._client: imaplib.IMAP4 | None = None
        self._mails = 0
        self._acts: dict[Callable[[], str], float] = {
            self._deliver: 5,
            self._append: 5,
            self._flag: 7,
            self._expunge: 4,
            self._move: 4,
            self._copy: 2,
            self._flood: 0.3,
            self._create: 2.5,
            self._rename: 2,
            self._delete: 1.2,
            self._remake: 0.8,
            self._swap: 0.4,
            self._rename_inbox: 0.4,
            self._renumber: 0.6,
        }

    def furnish(self) -> None:
        """Make what is there before anybody looks: a few mailboxes and messages."""
        for name in self._dice.sample(WORDS, 2):
            self.diary.append(f"at first: create {name}: {self._done(self.client.create(wire(name)))}")
        for _ in range(self._dice.randrange(2, 8)):
            self.diary.append(f"at first: {self._append()}")

    def act(self) -> None:
        """Do the next thing; what the server refuses, or loses its connection over, is done as far as it went."""
        (act,) = self._dice.choices([*self._acts], weights=[*self._acts.values()])
        try:
            said = act()
        except (imaplib.IMAP4.abort, OSError) as error:
            said = f"{act.__name__[1:]}: the connection is gone ({error})"
            self.leave()
        self.diary.append(said)

    def leave(self) -> None:
        """Close the connection; the next act opens another."""
        if self._client is not None:
            close(self._client)
            self._client = None

    # Messages

    def _deliver(self) -> str:
        count = self._dice.choice([1, 1, 1, 2, 4])
        for raw in self._drawn(count):
            self._server.deliver(self.account, raw)
        return f"{count} delivered to INBOX"

    def _flood(self) -> str:
        count = self._dice.randrange(22, 40)
        for raw in self._drawn(count):
            self._server.deliver(self.account, raw)
        return f"{count} delivered to INBOX at once"

    def _append(self) -> str:
        name = self._any()
        flags = self._some_flags()
        moment = _BEGINNING + timedelta(seconds=self._dice.randrange(200_000_000))
        date = imaplib.Time2Internaldate(moment)
        (raw,) = self._drawn(1)
        status, said = self.client.append(wire(name), f"({' '.join(flags)})", date, raw)
        return f"append to {name} {flags} of {date}: {_told(status, said)}"

    def _flag(self) -> str:
        name, uids = self._some_uids()
        sign = self._dice.choice(["+FLAGS", "-FLAGS", "FLAGS", "+FLAGS.SILENT"])
        flags = self._some_flags() or ["\\Seen"]
        done = self._uid("STORE", uids, sign, f"({' '.join(flags)})")
        return f"{name} {uids}: {sign} {flags}: {done}"

    def _expunge(self) -> str:
        name, uids = self._some_uids()
        self._uid("STORE", uids, "+FLAGS", "(\\Deleted)")
        return f"{name} {uids}: expunge: {self._uid('EXPUNGE', uids)}"

    def _move(self) -> str:
        name, uids = self._some_uids()
        to = self._any()
        if to == name:
            # pymap 0.36 was seen to serve one message's text under the UID of another after it.
            return f"{name}: no move into itself"
        self.moves += bool(uids)
        return f"{name} {uids}: move to {to}: {self._uid('MOVE', uids, wire(to))}"

    def _copy(self) -> str:
        name, uids = self._some_uids()
        to = self._any()
        return f"{name} {uids}: copy to {to}: {self._uid('COPY', uids, wire(to))}"

    # Mailboxes

    def _create(self) -> str:
        if len(self._names()) >= MOST_MAILBOXES:
            return self._delete()
        name = self._new_name()
        return f"create {name}: {self._done(self.client.create(wire(name)))}"

    def _rename(self) -> str:
        name = self._other_than_inbox()
        to = self._new_name()
        return f"rename {name} to {to}: {self._done(self.client.rename(wire(name), wire(to)))}" if name else "no rename"

    def _swap(self) -> str:
        """Give a mailbox the name that another had a moment ago."""
        name = self._other_than_inbox()
        if not name:
            return "no swap"
        away, fresh = self._new_name(), self._dice.random() < 0.5
        said = [self._done(self.client.rename(wire(name), wire(away)))]
        if fresh:
            said.append(self._done(self.client.create(wire(name))))
        else:
            other = self._other_than_inbox()
            said.append(self._done(self.client.rename(wire(other), wire(name))) if other else "-")
        return f"swap: {name} to {away}, then {'a new one' if fresh else other} as {name}: {said}"

    def _rename_inbox(self) -> str:
        to = self._new_name()
        return f"rename INBOX to {to}: {self._done(self.client.rename('INBOX', wire(to)))}"

    def _delete(self) -> str:
        name = self._other_than_inbox()
        return f"delete {name}: {self._done(self.client.delete(wire(name)))}" if name else "no delete"

    def _remake(self) -> str:
        """Delete a mailbox and make it again, with other messages."""
        name = self._other_than_inbox()
        if not name:
            return "no remake"
        said = [self._done(self.client.delete(wire(name))), self._done(self.client.create(wire(name)))]
        count = self._dice.randrange(4)
        for raw in self._drawn(count):
            self.client.append(wire(name), "", "", raw)
        return f"delete {name}, create it with {count}: {said}"

    def _renumber(self) -> str:
        """Give a mailbox another UIDVALIDITY, up or down, and keep its messages."""
        if self._bump is None:
            return "no other UIDVALIDITY"
        name, to = self._any(), self._dice.randrange(1, 2**31)
        try:
            self._bump(self.account, name, to)
        except RuntimeError as error:
            return f"{name}: its UIDVALIDITY stays: {error}"
        return f"{name}: its UIDVALIDITY becomes {to}"

    # Inside

    @property
    def client(self) -> imaplib.IMAP4:
        if self._client is None:
            self._client = self._server.imap(self.account)
        return self._client

    def _drawn(self, count: int) -> Sequence[bytes]:
        self._mails += 1
        seed = self._dice.randrange(10**9)
        # An APPEND of nothing is how a client cancels it.
        return [raw or b"Subject: was empty\r\n\r\n" for raw in mails(count, seed=seed)]

    def _some_flags(self) -> list[str]:
        return self._dice.sample(_FLAGS, self._dice.choice([0, 1, 1, 2, 3]))

    def _names(self) -> list[str]:
        return names_on(self.client)

    def _any(self) -> str:
        names = self._names()
        return self._dice.choice([*names, "INBOX"])

    def _other_than_inbox(self) -> str | None:
        # What this client has selected is not deleted under its own feet.
        self.client.select("INBOX", readonly=True)
        names = [name for name in self._names() if name != "INBOX"]
        return self._dice.choice(names) if names else None

    def _new_name(self) -> str:
        names = self._names()
        parents = [name for name in names if name != "INBOX" and name.count(self._delimiter) < 2]
        words = [word for word in WORDS if word not in names]
        if parents and (not words or self._dice.random() < 0.4):
            words = [self._dice.choice(parents) + self._delimiter + word for word in WORDS]
        free = [word for word in words if word not in names]
        return self._dice.choice(free or [f"x{self._dice.randrange(10**6)}"])

    def _some_uids(self) -> tuple[str, str]:
        """Select a mailbox; return its name and a few of its UIDs as a set, or nothing."""
        name = self._any()
        if self.client.select(wire(name))[0] != "OK":
            return name, ""
        found = self.client.uid("SEARCH", "ALL")[1][0]
        uids = found.split() if isinstance(found, bytes) else []
        chosen = self._dice.sample(uids, min(len(uids), self._dice.choice([1, 1, 2, 3, 8])))
        return name, b",".join(chosen).decode()

    def _uid(self, command: str, uids: str, *arguments: str) -> str:
        return _told(*self.client.uid(command, uids, *arguments)) if uids else "nothing to do it to"

    @staticmethod
    def _done(answer: tuple[str, object]) -> str:
        return _told(*answer)


def _told(status: str, said: object) -> str:
    return status if status == "OK" else f"{status} {said!r}"
