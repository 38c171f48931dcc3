"""What is fuzzed: every pure function that reads what strangers write, with the promises it makes.

The promises are of four kinds: totality (the one protocol error, or never an exception), bounds of what comes out,
the same answer for any split of the octets, and round trips. Time and memory are `campaign.py`'s.
"""

import itertools
import random
import re
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from idlepush.errors import InvalidQuery, RemoteProtocolError
from idlepush.imap.framing import Frame, Framer
from idlepush.imap.grammar import parse
from idlepush.imap.responses import ListEntry, Untagged
from idlepush.imap.types import MailboxName, decode_mutf7, encode_mutf7, excerpt, flags_of, printable
from idlepush.imap.uidset import UidSet
from idlepush.store.quantities import parse_duration, parse_size, spell_duration, spell_size
from idlepush.sync.content import TEXT_CHARACTERS, attachments_in, content_of
from idlepush.sync.mailboxes import chosen
from idlepush.sync.markup import text_of_html
from idlepush.sync.message import (
    ADDRESSES_LIMIT,
    HEADER_LIMIT,
    MESSAGE_ID_LIMIT,
    SUBJECT_LIMIT,
    fingerprint,
    header_of,
    headers_of,
)
from idlepush.sync.query import Place, document, read_query
from idlepush.sync.view import View, merged
from idlepush.sync.words import words_in
from tests.fuzz.campaign import Target
from tests.fuzz.on_disk import files, folders, line_ends
from tests.imap.test_grammar import CASES, texts_in
from tests.imap.test_structure import BROKEN, MISTAKES, WELL_FORMED
from tests.peers.mails import MAILS

_MAX_LINE: Final = 100_000
_MAX_LITERAL: Final = 100_000
_EXCERPT: Final = re.compile(r"“[^”]*”|[0-9]+")
_LINES: Final = tuple(stream + b"\r\n" for stream, _ in CASES.values())
_IMAP_WORDS: Final = tuple(
    b'* |+ |a1 |OK |NO |BYE |[|]|(|)|"|\\|{|}|{0}\r\n|{3}\r\n|{3+}\r\n|~{2}\r\n|NIL|FETCH |UID |FLAGS |MODSEQ |BODY[|'
    b'BODY[]<0> |RFC822.SIZE |INTERNALDATE |EXISTS|EXPUNGE|VANISHED |(EARLIER) |SEARCH |ESEARCH |(TAG "a") |ALL |'
    b'LIST () "/" |STATUS |ENABLED |X-GM-LABELS |EMAILID |ENVELOPE |BODYSTRUCTURE |*|1:*|1,2:4|<|>|%|&-|&'.split(b"|")
)


# ---- octets of a server


def _frames(framer: Framer, reads: list[bytes]) -> tuple[list[Frame], str | None]:
    frames: list[Frame] = []
    for read in reads:
        try:
            frames += framer.feed(read)
        except RemoteProtocolError as broken:
            return frames, str(broken)
    return frames, None if framer.error is None else str(framer.error)


def _framer() -> Framer:
    return Framer(max_line=_MAX_LINE, max_literal=_MAX_LITERAL)


def framing(octets: bytes) -> str:
    """Any split gives the same; what came out and what is pending is all there was, but line ends and announcements."""
    framer = _framer()
    frames, error = _frames(framer, [octets])
    dice = random.Random(zlib.crc32(octets))
    cuts = sorted({0, len(octets), *(dice.randrange(len(octets) + 1) for _ in range(dice.choice((1, 3, 30))))})
    reads = [octets[begin:end] for begin, end in itertools.pairwise(cuts)]
    assert _frames(_framer(), reads) == (frames, error)
    if len(octets) <= 300:
        assert _frames(_framer(), [bytes([octet]) for octet in octets]) == (frames, error)
    for frame in frames:
        assert len(frame.texts) == len(frame.literals) + 1
        assert not any(b"\n" in text for text in frame.texts)
        assert sum(map(len, frame.texts)) <= _MAX_LINE
        assert sum(map(len, frame.literals)) <= 2 * _MAX_LITERAL
    if error is None:
        held = sum(len(part) for frame in frames for part in (*frame.texts, *frame.literals))
        assert held + framer.discard() <= len(octets)
    shape = [len(frame.literals) for frame in frames[:4]]
    return f"{shape} {_shape(error)}"


def grammar(octets: bytes) -> str:
    """Any frame gives a response or the protocol error; texts are fit to be shown, sentences short."""
    try:
        frames = _framer().feed(octets)
    except RemoteProtocolError as broken:
        return _broken(broken)
    said: list[str] = []
    for frame in frames:
        try:
            response = parse(frame)
        except RemoteProtocolError as broken:
            said.append(_broken(broken))
            if len(said) == 3:
                break  # the first already ends a connection
            continue
        _shown(response)
        assert parse(frame) == response
        said.append(_kind(response))
    return " ".join(said[:3])


def view(octets: bytes) -> str:
    """Whatever is heard of a mailbox, the numbers stay in bounds, and the cost is that of hearing it."""
    try:
        frames = _framer().feed(octets)
    except RemoteProtocolError as broken:
        return _broken(broken)
    mailbox = MailboxName(b"INBOX")
    seen = View(mailbox, uidvalidity=1, uidnext=None, exists=3)  # type: ignore[arg-type]
    before = seen.heard
    for number, frame in enumerate(frames):
        try:
            said = parse(frame)
        except RemoteProtocolError:
            break
        if isinstance(said, Untagged):
            seen.hear(said)
        assert seen.exists >= 0
        assert len(seen.heard.numbers) <= 500
        if number % 7 == 6:
            before = merged(before, seen.take())
    heard = merged(before, seen.take())
    return f"{heard.exists} {heard.expunged} {bool(heard.numbers)} {bool(heard.uids)} {heard.any_flags}"


def _kind(response: object) -> str:
    slots = getattr(response, "__slots__", ())
    filled = [slot for slot in slots if getattr(response, slot) not in (None, (), "", {}, frozenset())]
    code = getattr(response, "code", None)
    return f"{type(response).__name__}({','.join(filled)}){code.name[:12] if code else ''}"


def _broken(broken: RemoteProtocolError) -> str:
    sentence = str(broken)
    assert sentence.isprintable()
    assert len(sentence) < 160
    return _shape(sentence)


def _shape(sentence: str | None) -> str:
    return "" if sentence is None else _EXCERPT.sub("", sentence)


def _shown(value: object) -> None:
    for text in texts_in(value):
        text.encode()
        assert "\x1b" not in text
        assert "\n" not in text


_PART_WORDS: Final = tuple(
    b'("text" "plain" |("message" "rfc822" |NIL |("name" "a.pdf") |("attachment" NIL)|'
    b'"7bit" 5|"mixed"|{1}\r\nx|(|)|"|\\'.split(b"|")
)
_PARTS: Final = tuple(
    [spelled for spelled, _ in WELL_FORMED.values()]
    + [spelled for spelled, _ in MISTAKES.values()]
    + [spelled for spelled in BROKEN.values() if len(spelled) < 1000]
)


def structure(octets: bytes) -> str:
    """A structure of any octets costs no more than its own response, and what is told of it can be shown."""
    frames, _ = _frames(_framer(), [b"* 1 FETCH (UID 7 BODYSTRUCTURE " + octets + b" FLAGS (\\Seen))\r\n"])
    if not frames:
        return "nothing"
    try:
        said = parse(frames[0])
    except RemoteProtocolError as broken:
        return _broken(broken)
    told = getattr(said, "structure", None)
    if told is None:
        return type(said).__name__
    found = attachments_in(told)
    _shown([(one.name, one.type, one.content_id) for one in found])
    return f"{told.understood} {min(3, len(told.parts))} {min(3, len(found))} {any(one.inline for one in found)}"


def content(octets: bytes) -> str:
    """Any octets have a content, the same in whatever pieces they come, and bounded."""
    read = content_of([octets])
    dice = random.Random(zlib.crc32(octets))
    size = dice.choice((1, 7, 100)) if len(octets) < 2000 else dice.randrange(1000, 9000)
    assert content_of(octets[at : at + size] for at in range(0, len(octets), size)) == read
    _shown([read.headers, read.cc, read.references, [(one.name, one.type, one.content_id) for one in read.attachments]])
    read.text.encode()
    assert len(read.text) <= TEXT_CHARACTERS
    assert all(one.size >= 0 for one in read.attachments)
    kinds = {one.type.partition("/")[0][:5] for one in read.attachments}
    return (
        f"{sorted(kinds)[:3]} {min(3, len(read.attachments))} {bool(read.text)} {read.is_cut} {bool(read.references)}"
    )


def search(octets: bytes) -> str:
    """Anything may be typed; its words hold nothing but letters and digits, and what was cut once stays as it is."""
    typed, _, text = octets.decode("utf-8", "replace").partition("\n")
    mail = document({Place.TEXT: [text_of_html(text)], Place.SUBJECT: [text]}, attached=False)
    try:
        query = read_query(typed)
    except InvalidQuery as wrong:
        return str(wrong)[:6]
    for phrase in query.wanted + query.unwanted:
        assert '"' not in "".join(phrase.words)
        assert tuple(words_in(" ".join(phrase.words))) == phrase.words
    return f"{mail.answers(query)} {min(2, len(query.wanted))} {min(2, len(query.unwanted))} {query.attached}"


# ---- values


def mutf7(octets: bytes) -> str:
    """Any octets have a text, every text a spelling that is read back, and a name is its own identity."""
    text = decode_mutf7(octets)
    text.encode()
    name = MailboxName(octets)
    assert name.raw == octets or (octets.upper() == b"INBOX" and name.raw == b"INBOX")
    assert decode_mutf7(encode_mutf7(text)) == text
    spelled = encode_mutf7(text)
    assert all(0x20 <= octet < 0x7F for octet in spelled)
    try:
        plain = octets.decode()
    except UnicodeDecodeError:
        plain = ""
    assert decode_mutf7(encode_mutf7(plain)) == plain
    return f"{spelled == octets} {'&' in text} {text.isascii()} {chr(0xFFFD) in text}"


def uidset(octets: bytes) -> str:
    """A set's spelling is read back, in pieces too; operations agree with sets of numbers."""
    one, _, other = octets.partition(b"\n")
    try:
        mine, theirs = UidSet.parse(one), UidSet.parse(other)
    except RemoteProtocolError as broken:
        return _broken(broken)
    for uids in (mine, theirs, mine | theirs, mine & theirs, mine - theirs):
        assert all(1 <= first <= last < 2**32 for first, last in uids.ranges)
        assert all(last + 1 < first for (_, last), (first, _) in itertools.pairwise(uids.ranges))
        if uids:
            assert UidSet.parse(str(uids)) == uids
            pieces = list(uids.spelled(30))
            assert all(len(piece) <= 30 for piece in pieces)
            assert UidSet.parse(",".join(pieces)) == uids
    assert len(mine) + len(theirs) == len(mine | theirs) + len(mine & theirs)
    assert mine - theirs | mine & theirs == mine
    if len(mine) + len(theirs) <= 2000:
        a, b = set(mine), set(theirs)
        assert (set(mine | theirs), set(mine & theirs), set(mine - theirs)) == (a | b, a & b, a - b)
        assert [uid for chunk in mine.chunks(7, newest_first=True) for uid in reversed(list(chunk))] == sorted(a)[::-1]
    return f"{min(3, len(mine.ranges))} {min(3, len(theirs.ranges))} {bool(mine & theirs)} {mine == theirs}"


def patterns(octets: bytes) -> str:
    """Lines of patterns and, behind an empty one, of names: the choice is among them, whatever they hold."""
    wanted, _, listed = octets.partition(b"\n\n")
    spelled = [line.decode("utf-8", "replace")[:200] for line in wanted.split(b"\n")[:20]]
    entries = [
        ListEntry(frozenset({"\\sent"} if line[:1] == b"S" else ()), (None, "/", ".")[len(line) % 3], MailboxName(line))
        for line in listed.split(b"\n")[:50]
    ]
    picked = chosen(spelled, entries)
    assert len(set(picked)) == len(picked)
    plain = sum(not (pattern.startswith(("\\", "!")) or re.search("[*%]", pattern)) for pattern in spelled)
    assert len(set(picked) - {entry.name for entry in entries}) <= plain
    assert not chosen([*spelled, "!*"], entries)
    return f"{min(3, len(picked))} {min(3, len(entries))} {'*' in spelled} {bool(picked)}"


def quantities(octets: bytes) -> str:
    """A duration or size is read, or refused by ValueError without repeating it; what is read can be spelled."""
    text = octets.decode("utf-8", "replace")
    readings: tuple[Callable[[], str], ...] = (lambda: _duration(text), lambda: _size(text))
    said: list[str] = []
    for reading in readings:
        try:
            said.append(reading())
        except ValueError as wrong:
            said.append(_shape(str(wrong)))
    return " ".join(said)


def _duration(text: str) -> str:
    seconds = parse_duration(text)
    assert 1 <= seconds <= 100 * 366 * 86_400
    assert parse_duration(spell_duration(seconds)) == seconds
    return re.sub("[0-9]+", "1", text)[:12]


def _size(text: str) -> str:
    size = parse_size(text)
    assert 0 <= size < 2**63
    assert parse_size(spell_size(size)) == size
    return re.sub("[0-9]+", "1", text)[:12]


def flags(octets: bytes) -> str:
    r"""Flags are those said, one of each; `\Recent` is none."""
    said = octets.decode("utf-8", "replace").split(" ")
    known = flags_of(said)
    assert {flag.casefold() for flag in known} == {flag.casefold() for flag in said} - {"\\recent"}
    assert len({flag.casefold() for flag in known}) == len(known)
    assert flags_of(known) == known
    shown = printable(octets.decode("utf-8", "replace"), 100)
    assert shown.isprintable() or not any(c < " " for c in shown)
    assert len(excerpt(octets)) <= 42
    return str(min(3, len(known)))


# ---- messages of strangers


def message(octets: bytes) -> str:
    """Any octets have headers: bounded, in valid UTF-8, without control characters, and those of the header alone."""
    header = header_of(octets)
    assert octets.startswith(header)
    assert header_of(header) == header
    found = headers_of(octets)
    if len(header) <= HEADER_LIMIT:
        assert headers_of(header) == found
    assert len(fingerprint(header, len(octets), datetime(1970, 1, 1, tzinfo=UTC))) == 32
    assert len(found.subject or "") <= SUBJECT_LIMIT
    assert len(found.message_id or "") <= MESSAGE_ID_LIMIT
    for people in (found.sender, found.to):
        assert len(people) <= ADDRESSES_LIMIT
        for one in people:
            assert one.name or one.address
            assert max(len(one.name or ""), len(one.address or "")) <= 1000
    _shown(found)
    assert found.date is None or found.date.tzinfo is UTC
    first = found.sender[0] if found.sender else None
    return (
        f"{bool(found.subject)} {bool(found.message_id)} {found.date is None} {min(3, len(found.sender))} "
        f"{min(3, len(found.to))} {first is not None and bool(first.name)} {first is not None and bool(first.address)} "
        f"{'=?' in (found.subject or '')} {chr(0xFFFD) in (found.subject or '')}"
    )


_MAIL_WORDS: Final = tuple(
    b"\r\n\r\n|\n\n|\r\nSubject: |\r\nFrom: |\r\nTo: |\r\nDate: |\r\nMessage-ID: |\r\n |\r\n\t|=?|?=|?Q?|?B?|"
    b"=?utf-8?Q?|utf-7|utf-16|utf-32|iso-2022-jp|iso-2022-kr|hz|gb18030|big5|shift_jis|euc-kr|koi8-r|windows-1252|utf-8*en|idna|"
    b"punycode|unicode_escape|raw_unicode_escape|hex|zlib|rot13|mbcs|undefined|cp65001|uu|base64|bz2|charmap|"
    b'"|\\|<|>|(|)|,|;|:|@|group:;|=00|=|+ADw-|\x1b$B|\x1b(B|~{|\xe2\x80\xa8|Thu, 01 Jan 1970 00:00:00 +0000|'
    b"Mon, 31 Feb 99999 25:61:61 +9999|-0000|Sat, 1 Jan 0000|1 Jan 1 00:00 +2359|GMT|PST".split(b"|")
)

_SMALL_MAILS: Final = tuple(mail for mail in MAILS.values() if len(mail) <= 8192)
_SETS: Final = (b"1:3,7\n2:9", b"4294967295\n1:4294967295", b"4:2\n3", b"1,3,5,7,9\n1:2,4:6", b"5:5\n5")
_NAMES: Final = (
    b"INBOX\n\nInbox\nSent",
    b"*\n!Trash\n\\Sent\n\nINBOX\nSent\nTrash\n[Gmail]/All",
    b"INBOX/%\n\nINBOX/a\nINBOX/a/b\nINBOX.x\n&AOQ-",
    b"a*b*c%d\n\naxbxcxd\na/b/c/d",
)
_SPELLED: Final = (
    b"Entw&APw-rfe",
    b"&-",
    b"&ZeVnLIqe-",
    b"&U,BTFw-",
    b"~peter/mail/&U,BTF2XlZyyKng-",
    b"&2D3eAA-",
    b"a&",
)
_QUANTITIES: Final = (
    b"90s",
    b"5m",
    b"1h30m",
    b"30d",
    b"4w2d",
    b"64KiB",
    b"50MiB",
    b"10MB",
    b"0",
    b"1000000",
    b"forever",
)
_FOLDERS: Final = (b"INBOX\nArchive/2026\nArchive.2026", b"../../etc/passwd\n..\n~root", b"&ZeVnLIqe-\na//b\nR&-D")
_FILES: Final = (
    b"1763750000.mk3.idlepush,W=4711:2,FS",
    b"0.m1.idlepush",
    b"17.m2.idlepush,S=1,W=2:2,aS",
    b"\\Seen \\Draft",
)
_FLAG_LISTS: Final = (b"\\Seen \\deleted $Foo", b"\\RECENT", b"a A \xc3\xa9 \xc3\x89 \xc5\xbf s", b"\\* x]")

TARGETS: Final[Mapping[str, Target]] = {
    target.name: target
    for target in (
        Target("framing", framing, (*_LINES, b"".join(_LINES)), _IMAP_WORDS, longest=128 * 1024),
        Target("grammar", grammar, _LINES, _IMAP_WORDS),
        Target("view", view, (*_LINES, b"* 4 EXISTS\r\n* 2 EXPUNGE\r\n* 1 FETCH (FLAGS ())\r\n" * 3), _IMAP_WORDS),
        Target("message", message, _SMALL_MAILS, _MAIL_WORDS),
        Target("structure", structure, _PARTS, _PART_WORDS),
        Target(
            "content", content, _SMALL_MAILS, (*_MAIL_WORDS, b"--x\r\n", b"--x--\r\n", b"; boundary=x", b"<b>", b"=?")
        ),
        Target("search", search, ('from:Jörg -"a b" 東京\nJörg 東京都'.encode(), b"before:2026-01-31 has:attachment")),
        Target(
            "mutf7",
            mutf7,
            _SPELLED,
            (b"&", b"-", b"&-", b",", b"&AAA", b"&2D0-", b"&3gA-", b"INBOX"),
            longest=64 * 1024,
        ),
        Target("uidset", uidset, _SETS, (b":", b",", b"\n", b"*", b"1:4294967295", b"4294967296")),
        Target("patterns", patterns, _NAMES, (b"*", b"%", b"!", b"\\Sent", b"/", b".", b"\n", b"\n\n", b"&AOQ-")),
        Target("quantities", quantities, _QUANTITIES, (b"s", b"m", b"h", b"d", b"w", b"KiB", b"MB", b"T", b".", b"-")),
        Target(
            "folders", folders, _FOLDERS, (b"/", b".", b"..", b"\\", b"\\2e", b"\\-", b"~", b"&-", b"\n", b"x" * 230)
        ),
        Target("files", files, _FILES, (b".idlepush", b":2,", b",W=", b",S=9", b"DFPRST", b"a", b"\\Seen", b" ")),
        Target(
            "line ends",
            line_ends,
            (*_SMALL_MAILS, b"a\r\nb\r\n"),
            (b"\r\n", b"\r", b"\n", b"\r\r\n"),
            longest=64 * 1024,
        ),
        Target("flags", flags, _FLAG_LISTS, (b"\\Seen", b" ", b"\\", b"$", b"\xc4\xb0", b"\xc3\x9f")),
    )
}
