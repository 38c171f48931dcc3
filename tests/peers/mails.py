"""Messages of every kind a mailbox may hold, the same ones for the same seed.

`MAILS` has one of each kind by name; `mails(count, seed=...)` draws any number of them. Bytes are as a server would
serve them; a kind in `NOT_OVER_LMTP` holds what delivery would change, so put it in by `append_maildir` or IMAP.
"""

import base64
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

_FIRST_DATE: Final = datetime(2026, 11, 21, 20, tzinfo=UTC)
_WORDS: Final = [
    "mirror",
    "mailbox",
    "cursor",
    "window",
    "hole",
    "push",
    "poll",
    "wake",
    "idle",
    "flag",
    "uid",
    "batch",
    "lane",
    "sink",
    "fold",
]
_NAMES: Final = ("Ada", "Grace", "Jürgen Groß", "王小明", "Ольга", "O'Brien, Pat", 'Quote "Q" Smith')


def header(
    dice: random.Random, subject: bytes, *, message_id: str | None = "", extra: bytes = b"", sender: str = "ada"
) -> bytes:
    """Spell a header and the empty line; without *message_id* one is drawn, None leaves it out."""
    date = format_datetime(_FIRST_DATE + timedelta(seconds=dice.randrange(1_000_000)))
    lines = [
        f"From: {sender} <{sender}@example.org>".encode(),
        b"To: someone@example.com",
        b"Subject: " + subject,
        b"Date: " + date.encode(),
    ]
    if message_id is not None:
        lines.append(f"Message-ID: {message_id or _draw_message_id(dice)}".encode())
    return b"\r\n".join(lines) + b"\r\n" + extra + b"\r\n"


def _draw_message_id(dice: random.Random) -> str:
    return f"<{dice.getrandbits(64):016x}@example.org>"


def _prose(dice: random.Random, size: int) -> bytes:
    """Lines of words, of exactly *size* octets, CRLF at the end."""
    text = bytearray()
    while len(text) < size:
        text += " ".join(dice.choices(_WORDS, k=10)).encode() + b"\r\n"
    return bytes(text[: max(0, size - 2)]) + b"\r\n"


def _octets(dice: random.Random, size: int) -> bytes:
    """Base64 of *size* random octets, in lines of 76."""
    return base64.encodebytes(dice.randbytes(size)).replace(b"\n", b"\r\n")


def _encoded_word(text: str, charset: str, *, q: bool = False) -> bytes:
    octets = text.encode(charset)
    if q:
        spelled = "".join(chr(o) if chr(o).isalnum() and o < 128 else f"={o:02X}" for o in octets)
        return f"=?{charset}?Q?{spelled}?=".encode()
    return f"=?{charset}?B?{base64.b64encode(octets).decode()}?=".encode()


# One function for each kind


def plain(dice: random.Random) -> bytes:
    return header(dice, b"plain") + _prose(dice, dice.randrange(40, 4000))


def eight_bit(dice: random.Random) -> bytes:
    """Raw Latin-1 in the header and in the body, which says UTF-8."""
    extra = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    return (
        header(dice, "Grüße".encode("latin-1"), extra=extra)
        + "Größe: 5 €\r\n\xff".encode("cp1252", "replace")
        + b"\r\n"
    )


def multipart(dice: random.Random) -> bytes:
    """Text, HTML and an attachment with a name in two spellings."""
    name = _encoded_word("Rechnung März.pdf", "utf-8").decode()
    extra = b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="=_outer"\r\n'
    body = (
        b"preamble\r\n--=_outer\r\n"
        b'Content-Type: multipart/alternative; boundary="=_inner"\r\n\r\n'
        b"--=_inner\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + "schön\r\n".encode() + b"\r\n"
        b"--=_inner\r\nContent-Type: text/html\r\n\r\n<p>sch&ouml;n</p>\r\n--=_inner--\r\n"
        b'--=_outer\r\nContent-Type: application/pdf; name="' + name.encode() + b'"\r\n'
        b"Content-Disposition: attachment; filename*=utf-8''Rechnung%20M%C3%A4rz.pdf\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + _octets(dice, 2000) + b"\r\n--=_outer--\r\n"
    )
    return header(dice, b"with an attachment", extra=extra) + body


def attached_message(dice: random.Random) -> bytes:
    extra = b"MIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n"
    return header(dice, b"Fwd: plain", extra=extra) + plain(dice)


def unclosed_multipart(dice: random.Random) -> bytes:
    extra = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n"
    return header(dice, b"cut off", extra=extra) + b"--x\r\nContent-Type: text/plain\r\n\r\nno end"


def empty(_dice: random.Random) -> bytes:
    return b""


def only_an_empty_line(_dice: random.Random) -> bytes:
    return b"\r\n"


def without_header(dice: random.Random) -> bytes:
    return b"\r\n" + _prose(dice, 200)


def without_body(dice: random.Random) -> bytes:
    return header(dice, b"no body")


def header_without_end(dice: random.Random) -> bytes:
    """A header and nothing behind it, not even the empty line."""
    return header(dice, b"no end").removesuffix(b"\r\n\r\n")


def broken_header(dice: random.Random) -> bytes:
    return (
        b"this is no header field\r\nNor: is\xff\r\n\tthis one\r\n: nameless\r\n" + header(dice, b"broken") + b"x\r\n"
    )


def nul_bytes(dice: random.Random) -> bytes:
    return header(dice, b"nul\0in the subject") + b"a\0b\r\n\0\0\r\n"


def bare_line_ends(dice: random.Random) -> bytes:
    """CR and LF alone, CR CR LF, and no line end at the end."""
    return header(dice, b"line ends") + b"lf\nlf\ncr\rcrcrlf\r\r\n\n\r\r\nend"


def dots(dice: random.Random) -> bytes:
    return header(dice, b"dots") + b".\r\n..\r\n.hidden\r\n\r\n.\r\nend\r\n"


def long_lines(dice: random.Random) -> bytes:
    """A body line of 20,000 octets, and a subject folded over hundreds of lines."""
    folded = b"\r\n ".join(word.encode() for word in dice.choices(_WORDS, k=300))
    return header(dice, folded) + b"x" * 20_000 + b"\r\n" + _prose(dice, 100)


def encoded_subject(dice: random.Random) -> bytes:
    """RFC 2047 as it should be, in two charsets and both spellings, and once as it should not."""
    parts = [
        _encoded_word("Grüße aus ", "iso-8859-1", q=True),
        _encoded_word("Köln ✓", "utf-8"),
        b"=?unknown-8bit?Q?=FF?=",
        b"=?utf-8?B?not base64?=",
    ]
    return header(dice, b"\r\n ".join(parts)) + b"body\r\n"


def cjk(dice: random.Random) -> bytes:
    extra = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-2022-jp\r\n"
    subject = _encoded_word("日本語の件名", "iso-2022-jp") + b"\r\n " + _encoded_word("中文主题", "gb18030")
    return header(dice, subject, extra=extra) + "本文です。\r\n".encode("iso-2022-jp")


def odd_sender(dice: random.Random) -> bytes:
    name = dice.choice(_NAMES)
    raw = header(dice, b"who?")
    return raw.replace(b"From: ada <", b"From: " + _encoded_word(name, "utf-8") + b" <", 1) + b"me\r\n"


def same_message_id(dice: random.Random) -> bytes:
    """The Message-ID that every message of this kind has."""
    return header(dice, b"same id", message_id="<the-same@example.org>") + _prose(dice, 60)


def no_message_id(dice: random.Random) -> bytes:
    return header(dice, b"no id", message_id=None) + _prose(dice, 60)


def hostile_header(dice: random.Random) -> bytes:
    """Escape sequences, bidirectional controls and markup where people will look."""
    subject = _encoded_word("\x1b]0;owned\x07\x1b[31m<script>alert(1)</script>\u202egpj.exe\r\nBcc: x", "utf-8")
    return header(dice, subject) + b"\x1b[2J<img src=x onerror=alert(1)>\r\n"


def many_headers(dice: random.Random) -> bytes:
    extra = b"".join(b"X-Field-%d: %d\r\n" % (number, dice.randrange(1000)) for number in range(2000))
    return header(dice, b"many fields", extra=extra) + b"x\r\n"


def large(dice: random.Random) -> bytes:
    """About 300 KiB, more than one slice of a body."""
    return header(dice, b"large") + _prose(dice, 300 * 1024)


def huge(dice: random.Random) -> bytes:
    """About 3 MB, in one attachment that does not compress."""
    extra = b"MIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
    return header(dice, b"huge", extra=extra) + _octets(dice, 2_200_000)


KINDS: Final[tuple[Callable[[random.Random], bytes], ...]] = (
    plain,
    eight_bit,
    multipart,
    attached_message,
    unclosed_multipart,
    empty,
    only_an_empty_line,
    without_header,
    without_body,
    header_without_end,
    broken_header,
    nul_bytes,
    bare_line_ends,
    dots,
    long_lines,
    encoded_subject,
    cjk,
    odd_sender,
    same_message_id,
    no_message_id,
    hostile_header,
    many_headers,
    large,
    huge,
)
NOT_OVER_LMTP: Final = frozenset({"empty", "only_an_empty_line", "nul_bytes", "bare_line_ends", "without_header"})
_HEAVY: Final = frozenset({"large", "huge", "long_lines", "many_headers"})


def make(kind: str, seed: int = 0) -> bytes:
    """Make a message of a kind, named as its function."""
    return _by_name()[kind](random.Random(f"{kind}-{seed}"))


def mails(count: int, *, seed: int = 0, is_heavy: bool = False) -> Iterator[bytes]:
    """Draw messages of any kind; heavy ones (about 20 kB to 3 MB) only if asked for."""
    dice = random.Random(seed)
    names = [name for name in _by_name() if is_heavy or name not in _HEAVY]
    for number in range(count):
        yield make(dice.choice(names), seed=seed * 1_000_003 + number)


def _by_name() -> Mapping[str, Callable[[random.Random], bytes]]:
    return {kind.__name__: kind for kind in KINDS}


MAILS: Final[Mapping[str, bytes]] = {name: make(name) for name in _by_name()}
