"""Octets into text, as mail spells it: fields, charsets, base64, encoded words (RFC 2047). Total and linear."""

import binascii
import re
from contextlib import suppress
from encodings.aliases import aliases
from typing import Final

from idlepush.imap.types import printable

_ENCODED_WORD: Final = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?([^?]*)\?=")

# A charset is looked up only where Python is known to have it: a failed look-up searches the disk for a module of
# that name and is remembered for ever. What is no charset of mail is no alias of one there (`punycode`,
# `unicode_escape`) or raises LookupError (`rot13`, `hex`).
_CHARSETS: Final = {
    **{codec: codec for codec in aliases.values()},
    **{codec: codec for codec in ("cp720", "cp737", "cp856", "cp874", "koi8_t", "koi8_u", "utf_8_sig")},
    **aliases,
    # The name of the older, smaller set is what mailers write; the superset is what they mean.
    **dict.fromkeys(("gb2312", "gb_2312_80", "gbk", "x_gbk"), "gb18030"),
    **dict.fromkeys(("iso_8859_8_i", "iso_8859_8_e"), "iso8859_8"),
    **dict.fromkeys(("iso_8859_1", "iso8859_1", "latin1", "latin_1"), "cp1252"),
}


def shown(text: str, limit: int) -> str:
    """Decode the encoded words in *text*, and make it fit to be shown; at most *limit* characters."""
    return printable(_decoded(text), limit).strip()


def _decoded(text: str) -> str:
    """Decode the encoded words in *text*.

    Neighbours in one charset are joined before they are decoded: RFC 2047 section 5 forbids cutting a character
    in two, and mailers do it all the same.
    """
    if "=?" not in text:
        return text
    pieces: list[str] = []
    words: list[bytes] = []
    charset = ""
    end = 0
    for word in _ENCODED_WORD.finditer(text):
        gap = text[end : word.start()]
        end = word.end()
        if words and (word[1] != charset or gap.strip()):
            pieces.append(in_charset(b"".join(words), charset))
            words = []
            # White space between two encoded words is no text (RFC 2047 section 6.2).
            pieces.append(gap if gap.strip() else "")
        elif not words:
            pieces.append(gap)
        charset = word[1]
        words.append(unpacked(word[2], word[3].encode("utf-8", "replace")))
    pieces.append(in_charset(b"".join(words), charset))
    pieces.append(text[end:])
    return "".join(pieces)


def unpacked(encoding: str, packed: bytes) -> bytes:
    return binascii.a2b_qp(packed, header=True) if encoding in "qQ" else from_base64(packed)


def from_base64(packed: bytes) -> bytes:
    """Decode base64, and as much of a damaged one as can be."""
    try:
        return binascii.a2b_base64(packed + b"==")  # too much padding does no harm, too little does
    except binascii.Error:
        # One character too many holds no octet; without it the rest can be read.
        kept = re.sub(rb"[^A-Za-z0-9+/]", b"", packed)
        kept = kept[: len(kept) - (len(kept) % 4 == 1)]
        return binascii.a2b_base64(kept + b"==")


def from_quoted_printable(packed: bytes) -> bytes:
    """Decode quoted-printable; what is none stays as it is."""
    return binascii.a2b_qp(packed)


def in_charset(octets: bytes, charset: str) -> str:
    """Decode *octets*; where the charset is none, or not the right one, as UTF-8 or else as Latin-1. Never raises."""
    # RFC 2231 section 5 lets a language stand behind the charset.
    name = re.sub(r"[^a-z0-9]+", "_", charset.partition("*")[0].lower()).strip("_")
    codec = _CHARSETS.get(name, "ascii")
    if codec != "ascii":  # ASCII with the eighth bit set is no ASCII: guessed at below
        with suppress(LookupError, UnicodeError):
            return octets.decode(codec, "replace")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def field_in(header: bytes, folded: bytes, name: bytes) -> str:
    """Return the body of the first field called *name*, unfolded; the empty string where there is none.

    *header* begins with a line end, so that every field stands behind one; *folded* is the same in lower case, so that
    several fields are looked for at the speed of C.
    """
    line = b"\n" + name
    at = 0
    while True:
        at = folded.find(line, at)
        if at < 0:
            return ""
        colon = at + len(line)
        while folded[colon : colon + 1] in {b" ", b"\t"}:  # obsolete, RFC 5322 section 4.5
            colon += 1
        if folded[colon : colon + 1] == b":":
            break
        at = colon
    begin = end = colon + 1
    while True:
        end = header.find(b"\n", end)
        if end < 0:
            end = len(header)
            break
        if header[end + 1 : end + 2] not in {b" ", b"\t"}:
            break
        end += 1
    body = header[begin:end].replace(b"\r\n", b"").replace(b"\n", b"").strip()
    # RFC 6532 says UTF-8; older mail with raw octets is Latin-1 oftener than anything else.
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1")
