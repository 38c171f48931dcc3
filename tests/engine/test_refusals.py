"""What a refusal means, by its code, then by its words."""

import pytest

from idlepush.engine.refusals import failure_class_of, suggested_backoff
from idlepush.errors import FailureClass

A, C, R, N, P, X = (
    FailureClass.AUTHENTICATION,
    FailureClass.CAPACITY,
    FailureClass.RATE_LIMIT,
    FailureClass.NETWORK,
    FailureClass.PERMISSION,
    FailureClass.OTHER,
)


@pytest.mark.parametrize(
    ("code", "text", "login", "wanted"),
    [
        ("AUTHENTICATIONFAILED", "Authentication failed.", True, A),
        ("EXPIRED", "Password expired", True, A),
        ("AUTHORIZATIONFAILED", "no such user", True, A),
        ("CONTACTADMIN", "call us", True, A),
        (None, "Login failed.", True, A),
        (None, "whatever", True, A),
        (None, "whatever", False, X),
        ("NOPERM", "no", False, P),
        ("NONEXISTENT", "no such mailbox", False, P),
        ("LIMIT", "CAPABILITY Rate limit hit", False, C),
        ("INUSE", "locked", False, C),
        ("UNAVAILABLE", "Maximum number of connections from user+IP exceeded", True, C),
        (None, "Too many simultaneous connections. (Failure)", True, C),
        ("ALERT", "Too many simultaneous connections. (Failure)", True, C),
        (None, "User is authenticated but not connected.", False, C),
        ("THROTTLED", "slow down", False, R),
        ("OVERQUOTA", "Account exceeded bandwidth limits.", False, R),
        (None, "Request is throttled. Suggested Backoff Time: 299961 milliseconds", False, R),
        (None, "Authentication Limit Exceeded", True, R),
        ("UNAVAILABLE", "Temporary authentication failure.", True, N),
        ("SERVERBUG", "Internal error occurred.", False, N),
        (None, "Server Unavailable. 15", True, N),
    ],
)
def test_a_refusal_has_the_class_that_tells_what_helps(
    code: str | None, text: str, login: bool, wanted: FailureClass
) -> None:
    assert failure_class_of(code, text, login=login) is wanted


def test_the_time_a_server_asks_for_is_read() -> None:
    assert suggested_backoff("Request is throttled. Suggested Backoff Time: 299961 milliseconds") == 299.961
    assert suggested_backoff("no such thing") is None
    assert suggested_backoff("Backoff Time: 99999999999999999999 milliseconds") is None
