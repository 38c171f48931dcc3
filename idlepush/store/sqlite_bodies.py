"""Raw messages in SQLite: cut into chunks of at most 256 KiB, compressed each for itself, equal ones stored once.

    body    sha256, NULL while it is still coming; octets; how many chunks
    chunk   a zstd frame, or the octets themselves where that is shorter

No statement holds more than a chunk, so a message of 200 MB costs no more memory than a small one, and no step takes
longer than a few MiB do, for pushes wait behind it:

    append     hashes what it stores along: a digest for each body under way lives here, beside the octets it has seen
    catch_up   hashes again, step by step, what is there of a body without such a digest (the process was restarted, or
               a transaction rolled back: then the octets differ, and it is not believed)
    drop       deletes a body of a few MiB; of a larger one only its name. Such a body is one that no row refers to and
               that nobody can find, and `clear_step` takes it away, now or after a kill, from its end

Every function runs in the database's thread; those that write, within a transaction.
"""

import hashlib
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import zstandard

from idlepush.errors import StoreError

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK: Final = 256 * 1024

STEP: Final = 16
"""Chunks that are hashed again, or deleted, at once: 4 MiB take about 10 ms."""

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
_CONDEMN: Final = "UPDATE body SET sha256 = NULL WHERE id = ?"
_CONDEMNED: Final = """
    SELECT id, chunks FROM body
    WHERE sha256 IS NULL AND NOT EXISTS (SELECT 1 FROM message WHERE message.body = body.id)
    LIMIT 1
"""
_SHRINK: Final = "UPDATE body SET chunks = ? WHERE id = ?"
_SHA256: Final = "SELECT sha256 FROM body WHERE id = ?"
_DISOWN: Final = "UPDATE body SET sha256 = randomblob(32) WHERE id = ?"
_DELETE: Final = "DELETE FROM body WHERE id = ?"
_DELETE_CHUNKS: Final = "DELETE FROM body_chunk WHERE id BETWEEN ? AND ?"
_CHUNK: Final = "SELECT packed, data FROM body_chunk WHERE id = ?"


@dataclass(slots=True)
class _Digest:
    """The hash of a body under way, and how much of it it has seen."""

    sha256: "_Hash" = field(default_factory=hashlib.sha256)
    octets: int = 0
    chunks: int = 0

    def update(self, data: bytes, chunks: int) -> None:
        self.sha256.update(data)
        self.octets += len(data)
        self.chunks += chunks


class Bodies:
    """Writes bodies; `written` counts the octets that went into the database."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._compress = zstandard.ZstdCompressor(level=_LEVEL).compress
        self._digests: dict[int, _Digest] = {}
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
        self._digests[body] = _Digest()
        self._digests[body].update(first, _count(len(first)))
        self._add_chunks(body, 0, first)
        return body

    def kept(self, body: int) -> int:
        """Return how many octets of it are there."""
        return self._kept(body)[0]

    def append(self, body: int, data: bytes) -> None:
        """Store what follows the octets that are there."""
        octets, count = self._kept(body)
        digest = self._digests.pop(body, None)
        if digest is not None and digest.octets == octets:
            digest.update(data, _count(len(data)))
            self._digests[body] = digest
        self._add_chunks(body, count, data)
        self._db.execute(_GROW, (len(data), _count(len(data)), body))

    def catch_up(self, body: int) -> bool:
        """Hash some of what is there and was not hashed; return whether there is more."""
        octets, count = self._kept(body)
        digest = self._digests.get(body)
        if digest is None or digest.octets > octets or digest.chunks > count:
            digest = self._digests[body] = _Digest()
        for number in range(digest.chunks, min(count, digest.chunks + STEP)):
            chunk = chunk_of(self._db, body, number)
            assert chunk is not None
            digest.update(chunk, 1)
        return digest.chunks < count

    def is_sound(self, body: int) -> bool:
        """Tell whether what is there of a whole body is what its hash says."""
        (sha256,) = self._db.execute(_SHA256, (body,)).fetchone()
        return bool(self._hash_of(body) == sha256)

    def disown(self, body: int) -> None:
        """Have no message find a body any more that is not what its hash says; its rows keep it."""
        self._db.execute(_DISOWN, (body,))

    def _hash_of(self, body: int) -> bytes | None:
        """Return the hash of what is there; None where it cannot be read."""
        digest = hashlib.sha256()
        for number in range(self._kept(body)[1]):
            try:
                chunk = chunk_of(self._db, body, number)
            except StoreError:
                return None
            digest.update(chunk or b"")
        return digest.digest()

    def finish(self, body: int) -> tuple[int, bytes]:
        """Make a body whole; return its id, another one where an equal one is there already, and its SHA-256.

        In the second case this one is left for the caller to `drop`, once no row refers to it.
        """
        while self.catch_up(body):
            pass
        sha256 = self._digests.pop(body).sha256.digest()
        known = self._db.execute(_FIND, (sha256,)).fetchone()
        if known is not None:
            return known[0], sha256
        self._db.execute(_FINISH, (sha256, body))
        return body, sha256

    def drop(self, body: int) -> None:
        """Delete it, or condemn it where it is long; a foreign key sees to it that no row refers to it any more."""
        self._digests.pop(body, None)
        if self._kept(body)[1] > STEP:
            self._db.execute(_CONDEMN, (body,))
        else:
            self._delete(body, 0)

    def clear_step(self) -> bool:
        """Delete some of a condemned body; return whether there is one."""
        found = self._db.execute(_CONDEMNED).fetchone()
        if found is not None:
            body, count = found
            self._delete(body, max(0, count - STEP))
        return found is not None

    def _delete(self, body: int, left: int) -> None:
        """Delete all chunks but the first *left*, and with the last of them the body."""
        self._db.execute(_DELETE_CHUNKS, (body * _CHUNKS + left, (body + 1) * _CHUNKS - 1))
        if left:
            self._db.execute(_SHRINK, (left, body))
        else:
            self._db.execute(_DELETE, (body,))

    def _kept(self, body: int) -> tuple[int, int]:
        octets, count = self._db.execute(_KEPT, (body,)).fetchone()
        return octets, count

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
    """Return one chunk, counted from 0; None where there is none.

    Raises:
        StoreError: it is there, and damaged.
    """
    found = db.execute(_CHUNK, (body * _CHUNKS + number,)).fetchone()
    if found is None:
        return None
    packed, data = found
    try:
        return zstandard.decompress(data, max_output_size=CHUNK) if packed else data
    except zstandard.ZstdError:
        raise StoreError("a body in the store is damaged; idlepush verify --deep --repair fetches it again") from None


def _count(octets: int) -> int:
    """Return in how many chunks so many octets are stored."""
    return -(-octets // CHUNK)
