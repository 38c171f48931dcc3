"""Peers every test may ask for: a shared Dovecot, Dovecots of one's own, and a user nobody else has."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.peers.dovecot import Dovecot, missing

_user_numbers = itertools.count(1)
_NEEDS_DOVECOT = {"dovecot", "own_dovecot"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a real Dovecot, so that `-m "not dovecot"` leaves it out."""
    for item in items:
        if _NEEDS_DOVECOT.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("dovecot")


def _require_dovecot() -> None:
    """Skip where Dovecot is not installed; in CI nothing may be missing unnoticed."""
    lack = missing()
    if lack is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(lack, pytrace=False)
    pytest.skip(lack)


@pytest.fixture(scope="session")
def dovecot() -> Iterator[Dovecot]:
    """A Dovecot shared by all tests of this process: keep to `user`, and never stop it."""
    _require_dovecot()
    with Dovecot() as server:
        yield server


@pytest.fixture
def own_dovecot() -> Iterator[Callable[..., Dovecot]]:
    """Start Dovecots that belong to one test: `own_dovecot(capabilities=..., extra=...)`."""
    _require_dovecot()
    with ExitStack() as running:

        def start(
            *,
            capabilities: str | None = None,
            extra: str = "",
            max_userip_connections: int = 10_000,
            listen: str = "127.0.0.1",
        ) -> Dovecot:
            return running.enter_context(
                Dovecot(
                    capabilities=capabilities,
                    extra=extra,
                    max_userip_connections=max_userip_connections,
                    listen=listen,
                )
            )

        yield start


@pytest.fixture
def user() -> str:
    """Name a user of the shared Dovecot whom no other test knows."""
    return f"{os.environ.get('PYTEST_XDIST_WORKER', 'user')}-{next(_user_numbers)}"
