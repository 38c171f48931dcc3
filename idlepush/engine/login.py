"""Log in to an account and choose its mailboxes: what the service, `check` and `verify` all begin with."""

from collections.abc import Collection, Mapping, Sequence

from idlepush.engine.credentials import read_secret
from idlepush.engine.dial import Dial, Endpoint, dial_tcp
from idlepush.engine.limits import LoginLimit
from idlepush.engine.listing import list_mailboxes
from idlepush.engine.observations import Feature
from idlepush.engine.sasl import Login
from idlepush.engine.session import Session, open_session
from idlepush.engine.settings import AccountSettings, is_loopback
from idlepush.engine.tls import context
from idlepush.errors import FailureClass, MailboxUnavailable, Trouble
from idlepush.imap.types import MailboxName
from idlepush.sync.mailboxes import chosen, is_plain


async def log_in(
    settings: AccountSettings,
    environment: Mapping[str, str],
    *,
    limit: LoginLimit | None = None,
    dial: Dial = dial_tcp,
    winner: str | None = None,
    without: Collection[Feature] = (),
) -> Session:
    """Return a session at the first endpoint that answers; one that refuses the login is not asked again elsewhere.

    *winner* (`host:port`) is asked first: the one that answered the last time. *without* are features not to be used.

    Raises:
        Trouble: in one of its kinds; nothing is left open.
    """
    secret = await read_secret(settings.password, environment)
    login = Login(username=settings.username, secret=secret, auth=settings.auth)
    failure: Trouble | None = None
    for host, port in sorted(settings.endpoints, key=lambda one: f"{one[0]}:{one[1]}" != winner):
        if limit is not None:
            await limit.admit(host)
        try:
            return await open_session(
                _endpoint(settings, host, port),
                login,
                dial=dial,
                connect_timeout=settings.connect_timeout,
                command_timeout=settings.command_timeout,
                without=without,
            )
        except Trouble as error:
            if error.failure_class not in (FailureClass.NETWORK, FailureClass.TIMEOUT):
                raise
            failure = error
    assert failure is not None
    raise failure


def _endpoint(settings: AccountSettings, host: str, port: int) -> Endpoint:
    encrypted = settings.tls != "none"
    pinned = settings.tls_fingerprint is not None
    return Endpoint(
        host,
        port,
        context(settings.tls_ca, pinned=pinned) if encrypted else None,
        starttls=settings.tls == "starttls",
        pin=settings.tls_fingerprint,
        compress=not is_loopback(host) if settings.compress is None else settings.compress,
    )


async def choose_mailboxes(session: Session, patterns: Sequence[str]) -> Sequence[MailboxName]:
    """Return the mailboxes that *patterns* choose on this server; the first is the one to idle in.

    Raises:
        MailboxUnavailable: none is chosen.
    """
    if all(map(is_plain, patterns)):
        return tuple(dict.fromkeys(MailboxName.from_text(name) for name in patterns))
    entries, _ = await list_mailboxes(session)
    names = chosen(patterns, entries.values())
    if not names:
        raise MailboxUnavailable("no mailbox of this account matches its `mailboxes`")
    return names
