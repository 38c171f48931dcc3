"""A `FakeImap` that lies about its numbers, forgets, and can be healed of everything at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from tests.peers.fake import Behaviour, FakeImap
from tests.peers.model import Mailbox


@dataclass(eq=False, kw_only=True)
class Liar(FakeImap):
    """What it is at the beginning is its nature; what is changed later is a fault, until `heal`."""

    uidnext_said: Literal["told", "missing", "stale", "one", "ahead"] = "told"
    uidvalidity_said: Literal["told", "missing"] = "told"
    exists_said: Literal["told", "often", "shrinks first", "huge first"] = "told"
    modseq_lost: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._nature: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(Behaviour)}
        self._stale: dict[str, int] = {}

    def heal(self) -> None:
        """Be as it was at the beginning; what was lied about in stone (sizes) stays a lie."""
        for name, value in self._nature.items():
            if name != "announced_sizes":
                setattr(self, name, type(value)() if isinstance(value, set | dict) else value)
        self.uidnext_said = self.uidvalidity_said = self.exists_said = "told"
        self.on_command = None
        self._faults.clear()

    def lie_about_uidnext(self, how: Literal["told", "missing", "stale", "one", "ahead"]) -> None:
        """From now on; a stale one is that of now."""
        self.uidnext_said = how
        self._stale = {mailbox.name: mailbox.uidnext for mailbox in self.mailboxes().values()}

    def lose_modseqs(self, mailbox: str) -> None:
        """Begin to count the mod-sequences of a mailbox anew, as a server does that lost its index."""
        target = self.mailbox(mailbox)
        target.highestmodseq = 1
        target.expunged.clear()
        for message in target.messages:
            target.touch(message)

    def renumber(self, mailbox: str, *, to: int, anew: bool) -> None:
        """Give a mailbox another UIDVALIDITY; *anew*: its messages other UIDs as well."""
        for message in self.mailbox(mailbox).messages:
            self.announced_sizes.pop(message.uid, None)
        self.bump_uidvalidity(mailbox, to=to, renumber=anew)
        if anew:
            self.lose_modseqs(mailbox)

    # Hooks

    def uidnext(self, mailbox: Mailbox, _where: Literal["SELECT", "STATUS"]) -> int | None:
        match self.uidnext_said:
            case "missing":
                return None
            case "stale":
                return self._stale.get(mailbox.name, mailbox.uidnext)
            case "one":
                return 1
            case "ahead":
                return mailbox.uidnext + 1000
            case "told":
                return mailbox.uidnext

    def uidvalidity(self, mailbox: Mailbox, _where: Literal["SELECT", "STATUS"]) -> int | None:
        return None if self.uidvalidity_said == "missing" else mailbox.uidvalidity

    def exists(self, count: int, _mailbox: Mailbox) -> Sequence[int]:
        match self.exists_said:
            case "often":
                return (count,) * 30
            case "shrinks first":
                return (0, count)
            case "huge first":
                return (2**32 - 1, count)
            case "told":
                return (count,)
