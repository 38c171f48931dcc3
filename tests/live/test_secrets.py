"""A canary password is looked for everywhere it must not be, whatever the server answers or breaks."""

import subprocess
from pathlib import Path

import pytest

from tests.live.fakes import listening
from tests.live.service import Service, service, wait_until
from tests.peers.dovecot import PASSWORD, Dovecot
from tests.peers.fake import FakeImap, answer, bye, say

CANARY = "cAnArY-7f3a9b-pässwörd"
SPELLINGS = (
    CANARY.encode(),
    CANARY.encode("utf-16-le"),
    b"Y0FuQXJZLTdmM2E5Y",
    b"NBbkFyWS03ZjNhOWIt",
    b"jQW5BclktN2YzYTliL",
)
"""In UTF-8 and UTF-16, and in base64 at each of its three alignments."""


def configuration(port: int) -> str:
    return f"""
[store]
url = "sqlite:///mirror.db"
[http]
listen = ""
[accounts.alice]
host = "127.0.0.1"
port = {port}
tls = "none"
username = "alice"
password = {{ file = "secret" }}
poll_interval = "1s"
"""


def holds_canary(data: bytes) -> bool:
    return any(spelling in data for spelling in SPELLINGS)


def search(running: Service, *outputs: bytes) -> None:
    """Look into every file but the secret's own, the process's own words, and what commands printed."""
    for path in running.folder.iterdir():
        if path.name not in ("secret", "idlepush.toml"):
            assert not holds_canary(path.read_bytes()), path.name
    if running.process is not None:
        for name in ("cmdline", "environ"):
            assert not holds_canary(Path(f"/proc/{running.process.pid}/{name}").read_bytes())
        listing = subprocess.run(["ps", "axeww"], capture_output=True, check=True).stdout
        assert not holds_canary(listing)
    for output in outputs:
        assert not holds_canary(output)


SCENES = {
    "all is well": {"password": CANARY},
    "the password is wrong and echoed": {"login_refusal": "NO [AUTHENTICATIONFAILED] {password} is not it"},
    "the password is echoed in BAD": {"login_refusal": "BAD LOGIN alice {password}"},
    "LOGIN instead of AUTHENTICATE": {"capabilities": "IMAP4rev1", "login_refusal": "NO no {password}"},
    "challenges without end": {"capabilities": "IMAP4rev1 AUTH=PLAIN", "empty_challenges": 1000},
}
BREAKS = {
    "nothing": [],
    "BYE that echoes": [("EXAMINE", bye(f"alice {CANARY} go away"))],
    "NO that echoes": [("EXAMINE", answer(f"NO [SERVERBUG] {CANARY}"))],
    "an ALERT that echoes": [("EXAMINE", say(f"* OK [ALERT] {CANARY}\r\n".encode()))],
    "a broken line that echoes": [("EXAMINE", say(f"{CANARY} {CANARY}\r\n".encode()))],
    "a broken login": [("AUTHENTICATE", say(f"* ( {CANARY} {{-1}}\r\n".encode()))],
}


CASES = [(scene, "nothing") for scene in SCENES] + [("all is well", break_) for break_ in BREAKS]


@pytest.mark.parametrize(("scene", "break_"), sorted(set(CASES)))
def test_a_password_is_found_nowhere(scene: str, break_: str, tmp_path: Path) -> None:
    fake = FakeImap(**SCENES[scene])  # type: ignore[arg-type]
    for point, fault in BREAKS[break_]:
        fake.at(point, fault, times=None)
    (tmp_path / "secret").write_text(CANARY + "\n")
    (tmp_path / "secret").chmod(0o600)
    with listening(fake) as port, service(tmp_path, configuration(port)) as running:
        running.end()
        running.start("-vv")
        wait_until(lambda: len(fake.logins) + len(fake.commands) >= 2, within=20, what="a login")
        wait_until(lambda: "session." in running.log_text, within=20, what="an outcome in the log")
        done = [
            running.idlepush(*words, check=False) for words in (("check", "--json"), ("verify",), ("events", "--json"))
        ]
        search(running, *(one.stdout + one.stderr for one in done))
    search(running)


def test_a_secret_that_cannot_be_read_parks_its_account_alone(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    toml = f"""
[store]
url = "sqlite:///mirror.db"
[http]
listen = ""
[defaults]
host = "localhost"
port = {dovecot.tls_port}
tls_ca = "{dovecot.ca_pem}"
[accounts.good]
username = "{user}"
password = {{ env = "GOOD_PASSWORD" }}
[accounts.bad]
username = "nobody"
password = {{ file = "not-there" }}
"""
    running = Service(tmp_path, environment={"GOOD_PASSWORD": PASSWORD})
    running.write(toml)
    running.start()
    try:
        wait_until(lambda: '"watching"' in running.log_text, within=20, what="the good one watches")
        wait_until(lambda: '"parked"' in running.log_text, within=20, what="the bad one is parked")
        assert "not-there" in running.log_text
        (tmp_path / "not-there").write_text(PASSWORD)
        wait_until(
            lambda: running.log_text.count('"watching"') == 2, within=30, what="the bad one watches, too, once readable"
        )
    finally:
        running.end()
