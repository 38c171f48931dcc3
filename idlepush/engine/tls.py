"""TLS contexts: whom we trust, decided once for each way of trusting.

A context takes tens of milliseconds to build (it reads the system's certificates), so those that are alike are shared,
until their file changes.
"""

import hashlib
import hmac
import ssl
from functools import lru_cache
from pathlib import Path

from idlepush.errors import TlsFailed


def context(ca_file: Path | None, *, pinned: bool) -> ssl.SSLContext:
    """Return a client context that trusts the system's authorities and *ca_file*.

    With *pinned* the chain is not judged at all: the caller holds the peer's certificate against a fingerprint
    (`check_pin`) before it sends a byte. TLS below 1.2 is refused.

    Raises:
        TlsFailed: *ca_file* cannot be read or holds no certificate.
    """
    try:
        stamp = ca_file.stat().st_mtime_ns if ca_file is not None else 0
    except OSError as error:
        raise TlsFailed(f"tls_ca: {ca_file} cannot be used: {error.strerror}") from None
    return _context(ca_file, stamp, pinned)


@lru_cache(maxsize=64)
def _context(ca_file: Path | None, _stamp: int, pinned: bool) -> ssl.SSLContext:  # noqa: FBT001 - part of the key
    try:
        made = ssl.create_default_context()
        if ca_file is not None:
            made.load_verify_locations(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise TlsFailed(f"tls_ca: {ca_file} cannot be used: {error.strerror or error}") from None
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if pinned:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def check_pin(certificate: bytes | None, fingerprint: str) -> None:
    """Hold the peer's certificate (DER) against `sha256:…`.

    Raises:
        TlsFailed: it is another certificate.
    """
    wanted = fingerprint.removeprefix("sha256:").replace(":", "").lower()
    found = hashlib.sha256(certificate or b"").hexdigest()
    if not hmac.compare_digest(found, wanted):
        raise TlsFailed(f"the certificate is not the pinned one; the server shows sha256:{found}")
