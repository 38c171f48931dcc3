"""Mailbox names of every kind on a real server: found by pattern, spelled in Unicode, read back exactly."""

from pathlib import Path

import pytest

from idlepush.imap.types import encode_mutf7
from tests.live.service import service, wait_until
from tests.live.storm import configuration
from tests.peers.dovecot import Dovecot

NAMES = ("Entwürfe", "Archive.2024", 'a b "q" c', "台北 & more", "back\\slash")


@pytest.mark.timeout(120)
def test_mailboxes_of_any_name_are_mirrored_and_read_back(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    with dovecot.imap(user) as client:
        for name in (*NAMES, "Junk"):
            quoted = '"' + encode_mutf7(name).decode().replace("\\", "\\\\").replace('"', '\\"') + '"'
            assert client.create(quoted)[0] == "OK"
            assert client.append(quoted, "", "", f"Subject: {name}\r\n\r\nx\r\n".encode())[0] == "OK"
    chosen = f'username = "{user}"\nmailboxes = ["INBOX", "*", "!Junk"]\n'
    toml = configuration(dovecot, user).replace(f'username = "{user}"\n', chosen)
    with service(tmp_path, toml) as running:
        wait_until(lambda: all(running.mirrored(user, name) for name in NAMES), within=60, what="all of them")
        for name in NAMES:
            assert running.idlepush("raw", user, name, "1").stdout == f"Subject: {name}\r\n\r\nx\r\n".encode()
        assert not running.mirrored(user, "Junk")
        assert running.idlepush("verify", "--deep").returncode == 0
