"""A service of one test's own, on the shared Dovecot, with its HTTP interface on a socket in its folder."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.service import Service, service
from tests.peers.dovecot import PASSWORD, Dovecot

Configure = Callable[..., str]
Serve = Callable[..., Service]

TOKEN = "sesame-of-this-test"


@pytest.fixture
def configured(dovecot: Dovecot) -> Configure:
    """Write a configuration: its accounts, each with what is said of it, and what else there is to be."""

    def write(*accounts: str, **special: str) -> str:
        tables = "".join(
            f'[accounts.{name}]\nusername = "{name}"\n{special.get(name.replace("-", "_"), "")}\n' for name in accounts
        )
        return (
            f'[store]\nurl = "sqlite:///mirror.db"\n[http]\nlisten = "unix:http.sock"\ntoken = "{TOKEN}"\n'
            f'[defaults]\nhost = "localhost"\nport = {dovecot.tls_port}\ntls_ca = "{dovecot.ca_pem}"\n'
            f'password = "{PASSWORD}"\n{tables}'
        )

    return write


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start services that end with the test."""
    with ExitStack() as running:
        yield lambda toml: running.enter_context(service(tmp_path, toml))


def state_of(running: Service, account: str) -> str | None:
    """What the service says of the account; None while it says nothing."""
    done = running.idlepush("status", "--json", check=False)
    if done.returncode:
        return None
    lines = {line["account"]: line for line in map(json.loads, done.stdout.splitlines())}
    return lines[account]["state"] if account in lines and lines[account]["running"] else None
