"""A real service tells a real endpoint of a trouble once, through restarts of any kind, and of its end."""

import signal
from pathlib import Path

from tests.live.service import service, wait_until
from tests.peers.dovecot import PASSWORD, Dovecot
from tests.telemetry.endpoint import Endpoint


def test_a_trouble_is_told_once_whatever_becomes_of_the_service_and_so_is_its_end(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    with Endpoint().running() as endpoint:
        toml = f"""
[store]
url = "sqlite:///mirror.db"
[http]
listen = ""
[alerts]
urls = ["{endpoint.url}"]
grace = "1s"
[accounts.alice]
host = "127.0.0.1"
port = {dovecot.port}
tls = "none"
username = "{user}"
password = {{ file = "{secret}" }}
"""
        with service(tmp_path, toml) as running:
            wait_until(lambda: len(endpoint.received) == 1, within=60, what="the trouble is told")

            def has_event(kind: str) -> bool:
                told = [event for event in running.records("events") if event["type"] == "account.alert"]
                return bool(told) and told[-1]["kind"] == kind

            wait_until(lambda: has_event("trouble"), within=10, what="the event of the trouble")
            for how in (signal.SIGTERM, signal.SIGKILL):
                running.end(how)
                running.start()
                count = running.log_text.count('"state": "parked"')
                wait_until(
                    lambda count=count: running.log_text.count('"state": "parked"') > count,  # type: ignore[misc]
                    within=30,
                    what="parked again",
                )
            secret.write_text(PASSWORD)
            secret.chmod(0o600)
            wait_until(lambda: len(endpoint.received) > 1, within=60, what="the end is told")
            wait_until(lambda: has_event("resolved"), within=10, what="the event of the end")
            told = [event["kind"] for event in running.records("events") if event["type"] == "account.alert"]
            assert running.end() == 0
        assert told == ["trouble", "resolved"]
        trouble, resolved = endpoint.titles
        assert trouble == "idlepush: alice (127.0.0.1) is in trouble: authentication"
        assert resolved.startswith("idlepush: alice (127.0.0.1) is back after ")
        assert "secret-path" not in running.log_text
