"""Line ends: a message's CRLF as LF, the way files have them, for as long as that can be undone. Pure."""


class LineEnds:
    """Turns CRLF to LF, piece by piece.

    A message in which each LF follows a CR, and each CR comes before an LF, is the same again when whoever reads the
    file puts the CRs back, as every IMAP server over a Maildir does. Any other would not be: it is to be kept as it is.
    """

    def __init__(self) -> None:
        self._held = b""
        """A CR at the end of a piece, whose LF may begin the next one."""

    def turn(self, piece: bytes) -> bytes | None:
        """Return the piece with LF alone; None where it could not be undone."""
        octets = self._held + piece
        self._held = octets[-1:] if octets.endswith(b"\r") else b""
        octets = octets[: len(octets) - len(self._held)]
        turned = octets.replace(b"\r\n", b"\n")
        if b"\r" in turned or turned.count(b"\n") != len(octets) - len(turned):
            return None
        return turned

    @property
    def is_over(self) -> bool:
        """Whether nothing is held back."""
        return not self._held
