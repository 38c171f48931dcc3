"""SPEAK: bytes to typed IMAP and back, without a socket."""
