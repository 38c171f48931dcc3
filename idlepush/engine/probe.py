"""Probe an account: log in, look, and tell what its server can do (`idlepush check`)."""

from collections.abc import Mapping
from dataclasses import dataclass

from idlepush.engine.credentials import read_secret
from idlepush.engine.login import choose_mailboxes, log_in
from idlepush.engine.notify import suits_notify
from idlepush.engine.session import Session
from idlepush.engine.settings import AccountSettings
from idlepush.errors import IdlepushError, MailboxUnavailable
from idlepush.imap.types import MailboxName
from idlepush.sync.events import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountCheck:
    """What was found out; `mailbox`, `watch` and `compare` are None where nobody could log in."""

    account: str
    host: str
    capabilities: tuple[str, ...] = ()
    mailbox: str | None = None
    watch: str | None = None
    compare: str | None = None
    problems: tuple[str, ...] = ()

    def record(self) -> dict[str, Json]:
        """The line that `check --json` prints."""
        return {
            "account": self.account,
            "host": self.host,
            "capabilities": [*self.capabilities],
            "mailbox": self.mailbox,
            "watch": self.watch,
            "compare": self.compare,
            "problems": [*self.problems],
        }


async def check_account(settings: AccountSettings, environment: Mapping[str, str], *, offline: bool) -> AccountCheck:
    """Find out how *settings* fare; every failure is a problem told, none is raised."""
    host = ", ".join(f"{host}:{port}" for host, port in settings.endpoints)
    try:
        if offline:
            await read_secret(settings.password, environment)
            return AccountCheck(account=settings.name, host=host)
        session = await log_in(settings, environment)
    except IdlepushError as error:
        return AccountCheck(account=settings.name, host=host, problems=(str(error),))
    try:
        return await _look_around(session, settings, host)
    except IdlepushError as error:
        return AccountCheck(account=settings.name, host=host, problems=(str(error),))
    finally:
        await session.logout()


async def _look_around(session: Session, settings: AccountSettings, host: str) -> AccountCheck:
    problems: list[str] = []
    usable: list[MailboxName] = []
    names = await choose_mailboxes(session, settings.mailboxes)
    for name in names:
        try:
            await session.examine(name)
        except MailboxUnavailable as unavailable:
            problems.append(str(unavailable))
        else:
            usable.append(name)
    return AccountCheck(
        account=settings.name,
        host=host,
        capabilities=tuple(sorted(session.capabilities)),
        mailbox=usable[0].text if usable else None,
        watch="notify" if suits_notify(session, len(names)) else "idle" if session.can_idle else "poll",
        compare=session.compare,
        problems=tuple(problems),
    )
