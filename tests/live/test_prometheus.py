"""A real Prometheus scrapes a real service: all that the dashboard and the rules ask for has an answer."""

import json
import math
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.fakes import listening
from tests.live.service import Service, service, wait_until
from tests.peers.dovecot import PASSWORD, Dovecot
from tests.peers.fake import Command, FakeImap, Session
from tests.peers.ports import free_ports
from tests.telemetry.grafana import GRAFANA, RULES, Query, dashboard_queries, rules

LOWERED = {
    "IdlepushPushStale": [("> 3600", ">= 0"), ("> 3 *", ">= 0 *")],
    "IdlepushSlow": [("> 5", "> 0")],
    "IdlepushLoopLag": [("> 1", ">= 0")],
    "IdlepushReconnects": [("> 30", "> 0")],
    "IdlepushBacklogStuck": [("messages > 0", "messages >= 0")],
    "IdlepushStoreFailing": [("> 0", ">= 0")],
    "IdlepushDiskFilling": [("< 1e9", "< 1e18")],
    "IdlepushBug": [("> 0", ">= 0")],
}
"""Rules about what takes hours, a full disk or a bug: asked with a threshold that a healthy service passes.

That they fire at their own is shown by `promtool test rules`. All other rules are asked as they stand.
"""


@pytest.fixture
def prometheus_program() -> str:
    """Find Prometheus; skip where there is none. In CI nothing may be missing unnoticed."""
    found = shutil.which("prometheus")
    if found is None:
        lack = "Prometheus is missing: apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(lack, pytrace=False)
        pytest.skip(lack)
    return found


class Prometheus:
    """The server's end that is asked."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self._base}{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._base}/-/ready", timeout=2):
                return True
        except OSError:
            return False

    def ask(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the number of every series that is a number."""
        found = self.get("/api/v1/query", query=expression)["result"]
        pairs = [(one["metric"], float(one["value"][1])) for one in found]
        return [(labels, value) for labels, value in pairs if not math.isnan(value)]


@contextmanager
def scraping(program: str, folder: Path, target: int) -> Iterator[Prometheus]:
    """Run Prometheus with the project's own configuration, scraping every second."""
    [port] = free_ports(1)
    config = (GRAFANA / "prometheus.yml").read_text()
    for written, meant in (("15s", "1s"), ("127.0.0.1:8143", f"127.0.0.1:{target}")):
        assert written in config
        config = config.replace(written, meant)
    folder.mkdir()
    (folder / "prometheus.yml").write_text(config)
    shutil.copy(RULES, folder)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        server = Prometheus(port)
        wait_until(server.is_ready, within=30, what="Prometheus is ready")
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)


def toml(server: Dovecot, *, port: int, silent: int, folder: Path) -> str:
    return f"""
[store]
url = "sqlite:///mirror.db"
[http]
listen = "127.0.0.1:{port}"
[alerts]
urls = ["json://127.0.0.1:1/"]
grace = "1s"
cooldown = "1s"
[defaults]
host = "127.0.0.1"
port = {server.port}
tls = "none"
idle_renew = "1s"

[accounts.pushed]
username = "pushed"
password = "{PASSWORD}"

[accounts.refused]
username = "refused"
password = {{ file = "{folder}/refused.password" }}

[accounts.locked]
username = "locked"
password = {{ file = "{folder}/nowhere" }}

[accounts.down]
port = 1
username = "down"
password = "{PASSWORD}"

[accounts.silent]
port = {silent}
username = "silent"
password = "{PASSWORD}"
"""


def until_answered(server: Prometheus, queries: list[Query], *, within: float, meanwhile: Callable[[], object]) -> None:
    """Wait until each of *queries* was answered with data at one time or another."""
    open_ones = list(queries)

    def all_answered() -> bool:
        meanwhile()
        open_ones[:] = [query for query in open_ones if not server.ask(query.expression)]
        return not open_ones

    try:
        wait_until(all_answered, within=within, what="every query is answered")
    except AssertionError:
        places = [f"{query.place}: {query.expression}" for query in open_ones]
        raise AssertionError("no data for " + "\n".join(places)) from None


def lowered(rule: Query) -> Query:
    expression = rule.expression
    for written, meant in LOWERED.get(rule.place, ()):
        assert written in expression
        expression = expression.replace(written, meant)
    return Query(rule.place, expression)


def scrape(port: int, accept: str = "*/*") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        text: bytes = answer.read()
    return text.decode()


def mail_at_every_idle(fake: FakeImap) -> Callable[[Session, Command], None]:
    """Mail comes whenever somebody idles, and IDLE does not tell."""

    def on_command(_: Session, command: Command) -> None:
        if command.name == "IDLE":
            fake.deliver(b"Subject: silent\r\n\r\nbody\r\n")

    return on_command


@pytest.mark.timeout(300)
def test_every_query_of_dashboard_and_rules_has_an_answer(
    prometheus_program: str, own_dovecot: Callable[..., Dovecot], tmp_path: Path
) -> None:
    dovecot = own_dovecot()
    fake = FakeImap()
    (tmp_path / "refused.password").write_text(PASSWORD)
    (tmp_path / "refused.password").chmod(0o600)
    [port] = free_ports(1)
    asked = {rule.place: lowered(rule) for rule in rules()}
    with listening(fake) as silent, scraping(prometheus_program, tmp_path / "prometheus", port) as server:

        def is_up(account: str) -> bool:
            return any(value == 1 for _, value in server.ask(f'idlepush_account_up{{account="{account}"}}'))

        with service(tmp_path, toml(dovecot, port=port, silent=silent, folder=tmp_path)) as running:
            for account in ("pushed", "refused", "silent"):
                wait_until(lambda account=account: is_up(account), within=60, what=f"{account} is up")  # type: ignore[misc]
            # Not before its counters were scraped once: what happened before that is no increase.
            fake.pushes, fake.on_command = "never", mail_at_every_idle(fake)
            assert server.ask(asked["IdlepushGone"].expression) == []
            assert server.ask(asked["IdlepushAuthenticationFailing"].expression) == []

            until_answered(server, dashboard_queries(), within=90, meanwhile=lambda: dovecot.deliver("pushed", "news"))

            # A server that restarts, and a password that was changed meanwhile.
            (tmp_path / "refused.password").write_text("wrong")
            dovecot.restart()
            running_rules = [query for name, query in asked.items() if name != "IdlepushGone"]
            until_answered(server, running_rules, within=120, meanwhile=lambda: None)
            answers_what_it_should(server, running, port)

        wait_until(lambda: bool(server.ask(asked["IdlepushGone"].expression)), within=30, what="it is gone")
        health = [rule["health"] for group in server.get("/api/v1/rules")["groups"] for rule in group["rules"]]
        assert set(health) == {"ok"}
        assert len(health) == len(rules())


def answers_what_it_should(server: Prometheus, running: Service, port: int) -> None:
    """The numbers are those of the accounts that were set up; no secret is among them."""
    states = {
        (labels["account"], labels["state"]) for labels, value in server.ask("idlepush_account_state") if value == 1
    }
    assert {("locked", "parked"), ("down", "backing_off")} <= states
    scores = {labels["account"]: value for labels, value in server.ask("idlepush_health_score")}
    assert (scores["locked"], scores["down"]) == (0, 20)
    assert max(value for _, value in server.ask("idlepush_messages_total")) > 0
    texts = [scrape(port), scrape(port, "application/openmetrics-text")]
    assert texts[1].endswith("# EOF\n")
    for text in [*texts, running.log_text]:
        assert PASSWORD not in text
        assert "json://" not in text
