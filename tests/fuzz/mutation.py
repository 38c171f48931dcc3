"""Making of one input another one: bit, cut, double, splice, words of the language, literals that still fit, floods.

Everything is drawn from the dice that is given, so that the same seed makes the same inputs.
"""

import base64
import random
import re
from collections.abc import Callable, Sequence
from typing import Final

LARGEST: Final = 512 * 1024

_NUMBER: Final = re.compile(rb"[0-9]+")
_LITERAL: Final = re.compile(rb"\{([0-9]{1,6})\+?\}\r?\n")
_INTERESTING: Final = (
    *(b"%d" % number for number in (0, 1, 9, 255, 256, 65535, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64)),
    b"-1",
    b"01",
    b"9" * 30,
    b"1" * 5000,
)


class Mutator:
    """Draws the next input from the ones that are known and from the words of the language."""

    def __init__(self, dice: random.Random, words: Sequence[bytes]) -> None:
        self._dice = dice
        self._words = (*words, b"\0", b"\r\n", b"\n", b"\r", b" ", b"\xff", b"\x1b[2J", "é".encode(), b"\xe2\x80\xae")
        self._ways: tuple[Callable[[bytearray, bytes], None], ...] = (
            self._flip,
            self._flip,
            self._octets,
            self._word,
            self._word,
            self._word,
            self._cut,
            self._double,
            self._splice,
            self._splice,
            self._swap,
            self._number,
            self._literal,
            self._encoded_word,
        )

    def next(self, corpus: Sequence[bytes]) -> bytes:
        """Return one of *corpus*, changed in one to six places; now and then blown up to hundreds of KiB."""
        made = bytearray(self._dice.choice(corpus))
        other = self._dice.choice(corpus)
        for _ in range(1 + min(self._dice.getrandbits(8) % 6, self._dice.getrandbits(8) % 6)):
            self._dice.choice(self._ways)(made, other)
        if self._dice.random() < 0.003:
            self._flood(made, other)
        return bytes(made[:LARGEST])

    def _at(self, made: bytearray) -> int:
        return self._dice.randint(0, len(made))

    def _part(self, octets: bytes | bytearray, longest: int = 40) -> tuple[int, int]:
        begin = self._dice.randint(0, len(octets))
        return begin, min(len(octets), begin + self._dice.randint(1, longest))

    def _flip(self, made: bytearray, _other: bytes) -> None:
        if made:
            made[self._dice.randrange(len(made))] ^= 1 << self._dice.randrange(8)

    def _octets(self, made: bytearray, _other: bytes) -> None:
        at = self._at(made)
        made[at : at + self._dice.randint(0, 2)] = self._dice.randbytes(self._dice.randint(1, 3))

    def _word(self, made: bytearray, _other: bytes) -> None:
        at = self._at(made)
        made[at : at + self._dice.choice((0, 0, 1, 5))] = self._dice.choice(self._words)

    def _cut(self, made: bytearray, _other: bytes) -> None:
        begin, end = self._part(made)
        del made[begin : len(made) if self._dice.random() < 0.1 else end]

    def _double(self, made: bytearray, _other: bytes) -> None:
        begin, end = self._part(made)
        made[begin:begin] = made[begin:end] * self._dice.choice((1, 1, 2, 20))

    def _splice(self, made: bytearray, other: bytes) -> None:
        begin, end = self._part(other, 200)
        at = self._at(made)
        made[at : at + self._dice.choice((0, end - begin))] = other[begin:end]

    def _swap(self, made: bytearray, _other: bytes) -> None:
        begin, end = self._part(made)
        moved = made[begin:end]
        del made[begin:end]
        at = self._at(made)
        made[at:at] = moved

    def _number(self, made: bytearray, _other: bytes) -> None:
        numbers = list(_NUMBER.finditer(made[:4096]))
        if numbers:
            begin, end = self._dice.choice(numbers).span()
            made[begin:end] = self._dice.choice(_INTERESTING)

    def _literal(self, made: bytearray, other: bytes) -> None:
        """Put a literal where something else stood, or change what one holds, its announcement kept right."""
        begin, end = self._part(other, 100)
        held = other[begin:end]
        literals = list(_LITERAL.finditer(made[:65536]))
        if literals and self._dice.random() < 0.5:
            found = self._dice.choice(literals)
            at, until = found.start(), found.end() + int(found[1])
        else:
            at, until = self._part(made, 10)
        made[at:until] = b"{%d}\r\n" % len(held) + held

    def _encoded_word(self, made: bytearray, other: bytes) -> None:
        """Put octets in as RFC 2047 spells them, whole or not, in a charset of the words or in none."""
        begin, end = self._part(other)
        held = other[begin:end]
        charset = self._dice.choice(self._words)
        if self._dice.random() < 0.5:
            spelled = b"B?" + base64.b64encode(held)
        else:
            spelled = b"q?" + b"".join(b"=%02X" % octet for octet in held)
        at = self._at(made)
        made[at:at] = b"=?" + charset + b"?" + spelled + self._dice.choice((b"?=", b"?= ", b"?", b""))

    def _flood(self, made: bytearray, other: bytes) -> None:
        """Repeat a part, or all of another input, until hundreds of KiB are there: what is not linear shows there."""
        begin, end = self._part(made, self._dice.choice((2, 8, 100)))
        part = bytes(made[begin:end]) if self._dice.random() < 0.7 else other[:300]
        if not part:
            return
        times = self._dice.choice((32 * 1024, 128 * 1024, LARGEST // 2)) // len(part)
        number = _NUMBER.search(part)
        if number and self._dice.random() < 0.5:
            # Numbers that count up by two: no two of them alike, no two neighbours.
            made[begin:begin] = b"".join(
                part[: number.start()] + b"%d" % (2 * count + 1) + part[number.end() :] for count in range(times)
            )
        else:
            made[begin:begin] = part * times
