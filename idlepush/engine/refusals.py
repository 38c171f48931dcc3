"""Sort what a server refuses into the failure classes of `contract.md`: by response code, then by its words.

RFC 5530 gives the codes; the texts are those of servers that send none (Exchange, Gmail, Yahoo, 163.com, Dovecot).
Texts are looked at only where no code decides: a code is a promise, a text is a habit.
"""

import re
from collections.abc import Mapping
from typing import Final

from idlepush.errors import FailureClass

_BY_CODE: Final[Mapping[str, FailureClass]] = {
    "AUTHENTICATIONFAILED": FailureClass.AUTHENTICATION,
    "AUTHORIZATIONFAILED": FailureClass.AUTHENTICATION,
    "EXPIRED": FailureClass.AUTHENTICATION,
    "CONTACTADMIN": FailureClass.AUTHENTICATION,
    "PRIVACYREQUIRED": FailureClass.TLS,
    "NOPERM": FailureClass.PERMISSION,
    "NONEXISTENT": FailureClass.PERMISSION,
    "TRYCREATE": FailureClass.PERMISSION,
    "LIMIT": FailureClass.CAPACITY,
    "INUSE": FailureClass.CAPACITY,
    "THROTTLED": FailureClass.RATE_LIMIT,
    "OVERQUOTA": FailureClass.RATE_LIMIT,
    "UNAVAILABLE": FailureClass.NETWORK,
    "SERVERBUG": FailureClass.NETWORK,
}

_BY_TEXT: Final[tuple[tuple[re.Pattern[str], FailureClass], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), failure_class)
    for pattern, failure_class in (
        # Dovecot says [UNAVAILABLE] with this text, so it is looked for before the code is believed.
        (r"maximum number of connections", FailureClass.CAPACITY),
        (r"too many (simultaneous )?connections", FailureClass.CAPACITY),
        (r"authenticated but not connected", FailureClass.CAPACITY),
        (r"backoff time|throttl|rate limit|try again later|authentication limit exceeded", FailureClass.RATE_LIMIT),
        (r"server unavailable|temporarily unavailable|internal error|system error", FailureClass.NETWORK),
    )
)

_BACKOFF: Final = re.compile(r"backoff time:?\s*(\d{1,9})\s*milliseconds", re.IGNORECASE)


def failure_class_of(code: str | None, text: str, *, login: bool = False) -> FailureClass:
    """Return the class of a NO, BAD or BYE; *login*: it answers LOGIN or AUTHENTICATE.

    A NO to a login that neither code nor text explains means wrong credentials: better parked than locked out.
    """
    for pattern, failure_class in _BY_TEXT[:3]:
        if pattern.search(text):
            return failure_class
    if code is not None and code in _BY_CODE:
        return _BY_CODE[code]
    for pattern, failure_class in _BY_TEXT[3:]:
        if pattern.search(text):
            return failure_class
    return FailureClass.AUTHENTICATION if login else FailureClass.OTHER


def suggested_backoff(text: str) -> float | None:
    """Return the seconds a server asks to be left alone for (Exchange: "Suggested Backoff Time: N milliseconds")."""
    found = _BACKOFF.search(text)
    return int(found[1]) / 1000 if found else None
