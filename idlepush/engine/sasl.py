"""How a login is spelled, how a server's challenges are answered, and how the secret is kept out of its words."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from idlepush.engine.credentials import Secret
from idlepush.engine.dial import Endpoint
from idlepush.errors import AuthenticationFailed, RemoteProtocolError
from idlepush.imap import commands

_MOST_CHALLENGES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who logs in, and how: `auth` is "password", "xoauth2" or "oauthbearer"."""

    username: str
    secret: Secret
    auth: str = "password"


def login_command(
    login: Login, offered: frozenset[str], at: Endpoint, *, initial_response: bool
) -> tuple[commands.Command, bytes | None]:
    """Return the command that logs in, and what answers its first challenge (None: LOGIN has none)."""
    name, secret = login.username, login.secret.reveal()
    ir = initial_response
    if login.auth == "xoauth2":
        command = commands.authenticate_xoauth2(name, secret, initial_response=ir)
        return command, commands.xoauth2_answer(name, secret).line
    if login.auth == "oauthbearer":
        command = commands.authenticate_oauthbearer(name, at.host, at.port, secret, initial_response=ir)
        return command, commands.oauthbearer_answer(name, at.host, at.port, secret).line
    if "AUTH=PLAIN" in offered:
        command = commands.authenticate_plain(name, secret, initial_response=ir)
        return command, commands.plain_answer(name, secret).line
    if "LOGINDISABLED" in offered:
        raise AuthenticationFailed("the server offers no way to log in with a password on this connection")
    return commands.login(name, secret, literals=commands.Literals.offered(offered)), None


class Challenges:
    """Answers the server's challenges in AUTHENTICATE (RFC 9051 section 6.2.2, RFC 7628 section 3.2.3)."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self._rounds = 0
        self.error: str | None = None
        """What an OAuth server says is wrong with the token."""

    def respond(self, challenge: bytes) -> bytes:
        """Return the line that answers *challenge*: the credentials once, then nothing but empty lines."""
        self._rounds += 1
        if self._rounds > _MOST_CHALLENGES:
            raise RemoteProtocolError("the server goes on challenging for ever")
        answer, self._answer = self._answer, None
        if answer is not None:
            return answer
        try:
            self.error = base64.b64decode(challenge, validate=True).decode("ascii", "replace")[:200]
        except binascii.Error:
            self.error = None
        return commands.EMPTY_ANSWER


def scrubber(login: Login) -> Callable[[str], str]:
    """Return what takes the secret, plain or in base64, out of a server's words (some echo what they were sent)."""
    secret, name = login.secret.reveal(), login.username
    plain = secret.encode()
    spelled = {
        secret,
        base64.b64encode(plain).decode(),
        base64.b64encode(b"\0" + name.encode() + b"\0" + plain).decode(),
        secret.replace("\\", "\\\\").replace('"', '\\"'),
    }
    hidden = sorted((one for one in spelled if one), key=len, reverse=True)

    def scrub(text: str) -> str:
        for one in hidden:
            text = text.replace(one, "***")
        return text

    return scrub
