"""COMPRESS=DEFLATE (RFC 4978): both directions of a connection as raw deflate streams, inflated by bounded pieces.

Each write ends in a sync flush, so that the other side can read all of it. What comes in may grow a thousandfold: it is
kept packed, and taken out in pieces of at most `PIECE` octets, so that no more is allocated than whoever reads takes.
"""

import zlib
from typing import Final

from idlepush.errors import RemoteProtocolError

PIECE: Final = 64 * 1024
"""Octets inflated at once, at most."""


class Deflate:
    """The two streams of one connection, from the completion of COMPRESS on."""

    def __init__(self) -> None:
        # Commands are short and few: the least memory and effort do (zlib's default would hold 256 KiB a connection).
        self._out = zlib.compressobj(level=1, wbits=-12, memLevel=4)
        self._in = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        self._packed = b""
        self.is_drained = True
        """All that came was taken."""

    def pack(self, data: bytes) -> bytes:
        """Return what to send for *data*."""
        return self._out.compress(data) + self._out.flush(zlib.Z_SYNC_FLUSH)

    def feed(self, packed: bytes) -> None:
        """Take in what was read; `take` gives it out."""
        self._packed += packed
        self.is_drained = False

    def take(self) -> bytes:
        """Return the next octets, at most `PIECE`; none where all that came was taken.

        Raises:
            RemoteProtocolError: it is no deflate stream, or the stream has ended.
        """
        if self.is_drained:
            return b""
        try:
            piece = self._in.decompress(self._packed, PIECE)
        except zlib.error as error:
            raise RemoteProtocolError(f"what the server sends is not compressed as agreed ({error})") from None
        self._packed = self._in.unconsumed_tail
        if self._in.eof:
            raise RemoteProtocolError("the server ended the compressed stream, which lasts as long as the connection")
        # A full piece may leave octets in the inflater even where all input is consumed.
        self.is_drained = not self._packed and len(piece) < PIECE
        return piece
