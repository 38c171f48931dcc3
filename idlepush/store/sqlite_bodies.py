"""Raw messages in SQLite: cut into chunks of at most 256 KiB, compressed each for itself, equal ones stored once.

    body    sha256, NULL while it is still coming; octets; how many chunks
    chunk   a zstd frame, or the octets themselves where that is shorter

No statement holds more than a chunk, so a message of 50 MiB costs no more memory than a small one. Every function
runs in the database's thread; those that write, within a transaction.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from typing import Final

import zstandard

CHUNK: Final = 256 * 1024

# Measured on mail: 277 MB/s and a ratio of 0.45; higher levels cost far more than they save (`speed.md`).
_LEVEL: Final = 3

# A body's chunks have the numbers from its own times this on: more than any message has.
_CHUNKS: Final = 2**20

_FIND: Final = "SELECT id FROM body WHERE sha256 = ?"
_INSERT: Final = "INSERT INTO body (sha256, octets, chunks) VALUES (?, ?, ?)"
_INSERT_CHUNK: Final = "INSERT INTO body_chunk (id, packed, data) VALUES (?, ?, ?)"
_KEPT: Final = "SELECT octets, chunks FROM body WHERE id = ?"
_GROW: Final = "UPDATE body SET octets = octets + ?, chunks = chunks + ? WHERE id = ?"
_FINISH: Final = "UPDATE body SET sha256 = ? WHERE id = ?"
_DELETE: Final = "DELETE FROM body WHERE id = ?"
_DELETE_CHUNKS: Final = "DELETE FROM body_chunk WHERE id BETWEEN ? AND ?"
_CHUNK: Final = "SELECT packed, data FROM body_chunk WHERE id = ?"


class Bodies:
    """Writes bodies; `written` counts the octets that went into the database."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._compress = zstandard.ZstdCompressor(level=_LEVEL).compress
        self.written = 0

    def store(self, raw: bytes) -> tuple[int, bytes]:
        """Store a whole body, or find the equal one; return its id and SHA-256."""
        sha256 = sha256_of(raw)
        known = self._db.execute(_FIND, (sha256,)).fetchone()
        if known is not None:
            return known[0], sha256
        body = self._inserted(sha256, len(raw))
        self._add_chunks(body, 0, raw)
        return body, sha256

    def begin(self, first: bytes) -> int:
        """Store the beginning of a body; return its id, for `append` and `finish`."""
        body = self._inserted(None, len(first))
        self._add_chunks(body, 0, first)
        return body

    def kept(self, body: int) -> int:
        """Return how many octets of it are there."""
        octets: int = self._db.execute(_KEPT, (body,)).fetchone()[0]
        return octets

    def append(self, body: int, data: bytes) -> None:
        """Store what follows the octets that are there."""
        _, count = self._db.execute(_KEPT, (body,)).fetchone()
        self._add_chunks(body, count, data)
        self._db.execute(_GROW, (len(data), _count(len(data)), body))

    def finish(self, body: int) -> tuple[int, bytes]:
        """Make a body whole; return its id, another one where an equal one is there already, and its SHA-256.

        In the second case this one is left for the caller to `drop`, once no row refers to it.
        """
        digest = hashlib.sha256()
        for chunk in chunks(self._db, body):
            digest.update(chunk)
        sha256 = digest.digest()
        known = self._db.execute(_FIND, (sha256,)).fetchone()
        if known is not None:
            return known[0], sha256
        self._db.execute(_FINISH, (sha256, body))
        return body, sha256

    def drop(self, body: int) -> None:
        """Delete it; a foreign key sees to it that no row refers to it any more."""
        self._db.execute(_DELETE, (body,))
        self._db.execute(_DELETE_CHUNKS, (body * _CHUNKS, (body + 1) * _CHUNKS - 1))

    def _inserted(self, sha256: bytes | None, octets: int) -> int:
        body = self._db.execute(_INSERT, (sha256, octets, _count(octets))).lastrowid
        assert body is not None
        return body

    def _add_chunks(self, body: int, first: int, data: bytes) -> None:
        for number, at in enumerate(range(0, len(data), CHUNK), body * _CHUNKS + first):
            chunk = data[at : at + CHUNK]
            packed = self._compress(chunk)
            is_smaller = len(packed) < len(chunk)
            stored = packed if is_smaller else chunk
            self._db.execute(_INSERT_CHUNK, (number, is_smaller, stored))
            self.written += len(stored)


def sha256_of(raw: bytes) -> bytes:
    """Return what a whole body is found by."""
    return hashlib.sha256(raw).digest()


def chunk_of(db: sqlite3.Connection, body: int, number: int) -> bytes | None:
    """Return one chunk, counted from 0; None where there is none."""
    found = db.execute(_CHUNK, (body * _CHUNKS + number,)).fetchone()
    if found is None:
        return None
    packed, data = found
    return zstandard.decompress(data, max_output_size=CHUNK) if packed else data


def chunks(db: sqlite3.Connection, body: int) -> Iterator[bytes]:
    """Yield what is there of a body, in order."""
    (_, count) = db.execute(_KEPT, (body,)).fetchone()
    for number in range(count):
        chunk = chunk_of(db, body, number)
        assert chunk is not None
        yield chunk


def _count(octets: int) -> int:
    """Return in how many chunks so many octets are stored."""
    return -(-octets // CHUNK)
