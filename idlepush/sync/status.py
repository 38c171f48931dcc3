"""What is said of mailboxes that are not selected: their numbers (STATUS), and hints that they changed (NOTIFY)."""

from dataclasses import dataclass, field, replace

from idlepush.imap.responses import Code, Condition, ListEntry, StatusReply, Untagged
from idlepush.imap.types import MailboxName, ModSeq, Uid, UidValidity


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxStatus:
    """What STATUS said of a mailbox; None where it did not."""

    messages: int | None = None
    uidnext: Uid | None = None
    uidvalidity: UidValidity | None = None
    modseq: ModSeq | None = None
    object_id: str | None = None

    @classmethod
    def of(cls, said: StatusReply) -> "MailboxStatus":
        """Read the items that matter here."""
        messages, uidnext, uidvalidity, modseq = (
            value if isinstance(value := said.items.get(name), int) else None
            for name in ("MESSAGES", "UIDNEXT", "UIDVALIDITY", "HIGHESTMODSEQ")
        )
        object_id = said.items.get("MAILBOXID")
        return cls(
            messages=messages,
            uidnext=Uid(uidnext) if uidnext is not None and 1 <= uidnext < 2**32 else None,
            uidvalidity=UidValidity(uidvalidity) if uidvalidity is not None and 1 <= uidvalidity < 2**32 else None,
            modseq=ModSeq(modseq) if modseq else None,
            object_id=None if object_id is None else str(object_id),
        )

    def updated(self, later: "MailboxStatus") -> "MailboxStatus":
        """Return both; what *later* says counts."""
        said = {name: value for name in self.__slots__ if (value := getattr(later, name)) is not None}
        return replace(self, **said)


@dataclass(slots=True)
class Elsewhere:
    """Hints: what the server said unasked of mailboxes that are not selected, and is not yet looked into."""

    told: dict[MailboxName, MailboxStatus] = field(default_factory=dict)
    listing: bool = False
    """Mailboxes were made, renamed or deleted."""
    overflowed: bool = False
    """There was too much to tell, and no more will be told (RFC 5465 section 5.8)."""

    def __bool__(self) -> bool:
        return bool(self.told) or self.listing or self.overflowed

    def hear(self, said: Untagged) -> bool:
        """Take *said* in; True if it is such a hint."""
        match said:
            case StatusReply(mailbox):
                self.told[mailbox] = self.told.get(mailbox, MailboxStatus()).updated(MailboxStatus.of(said))
            case ListEntry():
                self.listing = True
            case Condition(code=Code("NOTIFICATIONOVERFLOW")):
                self.overflowed = True
            case _:
                return False
        return True

    def take(self) -> "Elsewhere":
        """Return the hints and forget them: the caller looks into them now."""
        taken = Elsewhere(self.told, self.listing, self.overflowed)
        self.told, self.listing, self.overflowed = {}, False, False
        return taken
