"""The Maildir as notmuch reads it: every message found, unread where it is not seen, flags as tags."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from idlepush.imap.types import MailboxName, Uid
from idlepush.sinks.maildir import Maildir
from idlepush.store.memory import MemoryStore
from tests.store.making import INBOX, Clock, begin, changes, flags, message

NOTMUCH = shutil.which("notmuch")


def notmuch(folder: Path, *arguments: str) -> str:
    assert NOTMUCH is not None, "notmuch is missing"
    environment = {"NOTMUCH_CONFIG": str(folder / "config"), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    command = [NOTMUCH, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(NOTMUCH is None and os.environ.get("CI") != "true", reason="needs notmuch: apt-get install notmuch")
async def test_notmuch_finds_what_is_mirrored_and_follows_it(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        f"[database]\npath={tmp_path / 'mail'}\n[user]\nname=A\nprimary_email=a@example.org\n"
        "[new]\ntags=unread;inbox\n[maildir]\nsynchronize_flags=true\n"
    )
    store = MemoryStore(clock=Clock())
    sink = Maildir(tmp_path / "mail" / "alice", "alice", store)
    sink.learn("/")
    generation = await begin(store)
    head = b"From: a@example.org\r\nMessage-ID: <%d@example.org>\r\nSubject: %d\r\n\r\nhello\r\n"
    new = (message(1, head % (1, 1)), message(2, head % (2, 2), flags=flags("\\Seen", "\\Flagged")))
    await store.commit(changes(generation, new=new))
    archive = await begin(store, mailbox=MailboxName(b"Archive/2026"))
    await store.commit(changes(archive, mailbox=MailboxName(b"Archive/2026"), new=(message(3, head % (3, 3)),)))
    position = await sink.begin(await sink.first())

    def tags(uid: int) -> set[str]:
        [found] = json.loads(notmuch(tmp_path, "search", "--format=json", "--output=summary", f"id:{uid}@example.org"))
        return set(found["tags"])

    notmuch(tmp_path, "new", "--quiet")
    assert notmuch(tmp_path, "count", "*").strip() == "3"
    assert tags(1) >= {"unread", "inbox"}
    assert "flagged" in tags(2)
    assert "unread" not in tags(2)
    assert (
        notmuch(tmp_path, "search", "--output=messages", 'folder:"alice/.Archive.2026"').strip() == "id:3@example.org"
    )

    # Notmuch itself renames: what it tags, it writes into the file's name.
    notmuch(tmp_path, "tag", "+replied", "id:1@example.org")
    await store.commit(changes(generation, flags={Uid(1): flags("\\Seen"), Uid(2): flags()}))
    await sink.take(await store.events(position))
    notmuch(tmp_path, "new", "--quiet")
    assert tags(1) & {"unread", "replied", "flagged"} == set()
    assert tags(2) & {"unread", "replied", "flagged"} == {"unread"}
    assert await store.find("alice", INBOX, 1) is not None
