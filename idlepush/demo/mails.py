"""Mail as people get it: different senders, subjects in several languages, now and then an attachment."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final


@dataclass(frozen=True, slots=True)
class _Sender:
    name: str
    address: str
    mails: tuple[tuple[str, str], ...]
    """Subject and text; {day} and {number} are filled in."""
    attachment: tuple[str, str, str] | None = None


_SENDERS: Final = (
    _Sender(
        "Ada Lovelace",
        "ada@analytical.example",
        (
            ("Lunch on {day}?", "Shall we try the new place by the river? I could be there at half past twelve."),
            ("Re: the draft of chapter {number}", "I have marked where I got lost. Most of it reads very well."),
        ),
    ),
    _Sender(
        "Zoë Müller",
        "zoe.mueller@werkstatt.example",
        (
            ("Fotos vom Wochenende", "Anbei die besten. Schöne Grüße!"),
            ("Angebot Nr. {number}", "Wie besprochen, mit Zeichnung."),
        ),
        ("image", "jpeg", "Werkstück.jpeg"),
    ),
    _Sender("José Núñez", "jose@taller.example", (("¿Quedamos el viernes?", "Yo puedo a partir de las seis."),)),
    _Sender("山田 花子", "hanako@tokei.example", (("会議の資料について", "資料を添付しました。ご確認ください。"),)),
    _Sender(
        "Grace Hopper",
        "grace@compilers.example",
        (
            ("Notes from the call", "Short version: we ship it, and we write down what we learned."),
            ("A bug, taped into the log", "Relay {number}. It really was one."),
        ),
    ),
    _Sender(
        "Monitoring",
        "alerts@monitoring.example",
        (
            ("[firing] disk space on db-{number}", "4 % left, and falling."),
            ("[resolved] disk space on db-{number}", "The trouble lasted for 14 minutes."),
        ),
    ),
    _Sender(
        "Railway Tickets",
        "tickets@railway.example",
        (("Your ticket for {day}", "Platform 7, car {number}. Have a pleasant journey."),),
        ("application", "pdf", "ticket.pdf"),
    ),
    _Sender(
        "Parcel Service",
        "tracking@parcels.example",
        (("Your parcel {number} arrives on {day}", "Nobody at home? It will be left with a neighbour."),),
    ),
    _Sender(
        "City Library",
        "desk@library.example",
        (("Two books are due on {day}", "You may extend them twice."),),
    ),
    _Sender(
        "Accounts",
        "billing@hosting.example",
        (("Invoice {number}", "Please find the invoice attached. Payable within 30 days."),),
        ("application", "pdf", "invoice.pdf"),
    ),
)
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")


def mails(now: Callable[[], datetime], dice: random.Random) -> Iterator[EmailMessage]:
    """Yield messages, for ever, that want only their To."""
    before = None
    while True:
        sender = dice.choice([one for one in _SENDERS if one is not before])
        before = sender
        subject, text = dice.choice(sender.mails)
        words = {"day": dice.choice(_DAYS), "number": dice.randrange(10, 9000)}
        message = EmailMessage(policy=SMTP)
        message["From"] = f'"{sender.name}" <{sender.address}>'
        message["Subject"] = subject.format(**words)
        message["Date"] = format_datetime(now())
        message["Message-ID"] = f"<{dice.getrandbits(64):016x}@{sender.address.rpartition('@')[2]}>"
        message.set_content(f"{text.format(**words)}\n\n-- \n{sender.name}\n")
        if sender.attachment is not None:
            kind, subkind, name = sender.attachment
            message.add_attachment(dice.randbytes(20_000), maintype=kind, subtype=subkind, filename=name)
        yield message
