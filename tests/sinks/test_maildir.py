"""The Maildir beside a mirror: what its files are after each event, each stranger's deed, and each start."""

import mailbox
from datetime import timedelta
from pathlib import Path

import pytest

from idlepush.errors import SinkFailed
from idlepush.imap.types import MailboxName, Uid
from idlepush.imap.uidset import UidSet
from idlepush.sinks import maildir as under_test
from idlepush.sinks import maildir_writing
from idlepush.sinks.maildir import Maildir
from idlepush.store.memory import MemoryStore
from tests.sinks.holding import differences
from tests.store.making import INBOX, START, Clock, begin, changes, flags, message, part, row

ARCHIVE = MailboxName(b"Archive/2026")


class Beside:
    """A store and its Maildir, which is brought up to date when told to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = MemoryStore(clock=Clock())
        self.sink = self.restarted()
        self.cursor: int | None = None

    def restarted(self, delimiter: str | None = "/") -> Maildir:
        self.sink = Maildir(self.root, "alice", self.store)
        self.sink.learn(delimiter)
        return self.sink

    async def begin(self) -> None:
        if self.cursor is None:
            self.cursor = await self.sink.first()
        self.cursor = await self.sink.begin(self.cursor)

    async def follow(self) -> None:
        assert self.cursor is not None
        events = await self.store.events(self.cursor)
        await self.sink.take([event for event in events if event.account == "alice"])
        self.cursor = await self.store.position()

    def names(self, folder: str = "") -> list[str]:
        """What messages a folder holds, as `new/…` and `cur/…`."""
        return sorted(
            f"{place}/{path.name}" for place in ("new", "cur") for path in (self.root / folder / place).iterdir()
        )

    def leftovers(self) -> list[str]:
        return [str(path) for path in self.root.rglob("tmp/*")]

    async def is_equal(self) -> None:
        assert await differences(self.store, self.root) == []


@pytest.fixture
def beside(tmp_path: Path) -> Beside:
    return Beside(tmp_path / "mail" / "alice")


async def filled(beside: Beside, *uids: int, mailbox: MailboxName = INBOX) -> int:
    generation = await begin(beside.store, mailbox=mailbox)
    await beside.store.commit(changes(generation, mailbox=mailbox, new=tuple(message(uid) for uid in uids)))
    return generation


async def test_what_is_mirrored_already_is_there_after_the_first_start(beside: Beside) -> None:
    await filled(beside, 1, 2, 3)
    await filled(beside, 1, mailbox=ARCHIVE)
    await beside.begin()
    await beside.is_equal()
    assert len(beside.names()) == 3
    assert len(beside.names(".Archive.2026")) == 1
    assert (beside.root / ".Archive.2026" / "maildirfolder").exists()


async def test_new_mail_arrives_in_new_and_its_first_flag_moves_it_to_cur(beside: Beside) -> None:
    generation = await begin(beside.store)
    await beside.begin()
    await beside.store.commit(changes(generation, new=(message(1), message(2, flags=flags("\\Seen")))))
    await beside.follow()
    first, second = await row(beside.store, 1), await row(beside.store, 2)
    assert f".{first.id}.idlepush,W={first.size}" in beside.names()[1]
    assert beside.names()[1].startswith("new/")
    assert beside.names()[0].endswith(f".{second.id}.idlepush,W={second.size}:2,S")

    await beside.store.commit(changes(generation, flags={Uid(1): flags("\\Flagged", "\\Answered", "work")}))
    await beside.follow()
    assert any(f".{first.id}." in name and name.endswith(":2,FR") for name in beside.names())
    await beside.store.commit(changes(generation, flags={Uid(1): flags()}))
    await beside.follow()
    assert any(f".{first.id}." in name and name.startswith("cur/") and name.endswith(":2,") for name in beside.names())
    await beside.is_equal()


async def test_an_event_seen_again_does_nothing(beside: Beside) -> None:
    generation = await begin(beside.store)
    await beside.begin()
    await beside.store.commit(changes(generation, new=(message(1), message(2)), flags={}))
    await beside.store.commit(changes(generation, flags={Uid(1): flags("\\Seen")}, expunged=UidSet.of(2)))
    await beside.follow()
    before = {name: (beside.root / name).stat() for name in beside.names()}
    beside.cursor = 0
    await beside.follow()
    assert {name: (beside.root / name).stat() for name in beside.names()} == before
    await beside.is_equal()


async def test_what_is_expunged_is_removed(beside: Beside) -> None:
    generation = await filled(beside, 1, 2, 3)
    await beside.begin()
    await beside.store.commit(changes(generation, expunged=UidSet.of(2)))
    await beside.follow()
    assert len(beside.names()) == 2
    await beside.is_equal()


async def test_a_reset_renames_and_rewrites_nothing(beside: Beside) -> None:
    await filled(beside, 1, 2)
    await beside.begin()
    inodes = {(beside.root / name).stat().st_ino for name in beside.names()}
    second = await begin(beside.store, uidvalidity=8)
    await beside.store.commit(changes(second, new=(message(1), message(2, flags=flags("\\Seen"))), forget_older=True))
    await beside.follow()
    assert {(beside.root / name).stat().st_ino for name in beside.names()} == inodes
    await beside.is_equal()


async def test_a_long_message_is_a_file_when_it_is_whole(beside: Beside) -> None:
    generation = await begin(beside.store)
    await beside.begin()
    await beside.store.commit(changes(generation, new=(message(1, b"Subject: long\r\n\r\n", complete=False, size=25),)))
    await beside.follow()
    assert beside.names() == []
    await beside.store.commit(changes(generation, slices=(part(1, 17, b"the end\r", final=True),)))
    await beside.follow()
    [name] = beside.names()
    assert (beside.root / name).read_bytes() == b"Subject: long\r\n\r\nthe end\r", "a CR alone: kept as it is"


async def test_what_is_mirrored_by_its_headers_alone_is_no_file(beside: Beside) -> None:
    generation = await begin(beside.store)
    await beside.store.commit(changes(generation, new=(message(1, None), message(2, None, truncated=True))))
    await beside.begin()
    await beside.store.commit(changes(generation, new=(message(3, None),), flags={Uid(1): flags("\\Seen")}))
    await beside.follow()
    assert beside.names() == []


async def test_a_message_larger_than_a_slice_is_written_whole(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maildir_writing, "SLICE", 1000)
    large = b"Subject: large\r\n\r\n" + b"0123456789abc\r\n" * 100_000
    odd = large + b"alone: \n" + large
    generation = await begin(beside.store)
    await beside.store.commit(changes(generation, new=(message(1, large), message(2, odd))))
    await beside.begin()
    contents = sorted(((beside.root / name).read_bytes() for name in beside.names()), key=len)
    assert contents == [large.replace(b"\r\n", b"\n"), odd]


async def test_what_a_mail_reader_did_is_found_again(beside: Beside) -> None:
    generation = await filled(beside, 1, 2, 3)
    await beside.begin()
    for number, (name, info) in enumerate(zip(beside.names(), (":2,", ":2,S", ":2,Sab"), strict=True)):
        (beside.root / name).rename(beside.root / "cur" / (Path(name).name + info))
        assert number < 3
    await beside.store.commit(
        changes(generation, flags={Uid(1): flags("\\Flagged"), Uid(3): flags("\\Answered")}, expunged=UidSet.of(2))
    )
    await beside.follow()
    assert [name.partition(":")[2] for name in beside.names()] == ["2,F", "2,Rab"]


async def test_local_flags_and_removals_are_undone_at_the_next_start(beside: Beside) -> None:
    await filled(beside, 1, 2)
    await beside.begin()
    first, second = beside.names()
    (beside.root / first).rename(beside.root / "cur" / (Path(first).name + ":2,S"))
    (beside.root / second).unlink()
    beside.restarted()
    await beside.begin()
    await beside.is_equal()


async def test_what_is_moved_to_cur_stays_there(beside: Beside) -> None:
    await filled(beside, 1)
    await beside.begin()
    [name] = beside.names()
    (beside.root / name).rename(beside.root / "cur" / (Path(name).name + ":2,"))
    before = beside.names()
    beside.restarted()
    await beside.begin()
    assert beside.names() == before


async def test_files_of_others_are_left_alone(beside: Beside) -> None:
    generation = await filled(beside, 1, mailbox=ARCHIVE)
    await beside.begin()
    foreign = beside.root / ".Archive.2026" / "cur" / "1700000000.M1P2.host:2,S"
    foreign.write_bytes(b"mine")
    await beside.store.commit(changes(generation, mailbox=ARCHIVE, expunged=UidSet.of(1)))
    await beside.follow()
    await beside.store.mailbox_gone("alice", ARCHIVE)
    await beside.follow()
    beside.restarted()
    await beside.begin()
    assert foreign.read_bytes() == b"mine"
    assert beside.names(".Archive.2026") == ["cur/" + foreign.name]


@pytest.mark.parametrize("is_down", [False, True], ids=["while it is followed", "while nothing runs"])
async def test_a_mailbox_that_goes_takes_its_folder_along(beside: Beside, is_down: bool) -> None:
    await filled(beside, 1, 2, mailbox=ARCHIVE)
    await beside.begin()
    (beside.root / ".Archive.2026" / "dovecot.index.log").touch()
    await beside.store.mailbox_gone("alice", ARCHIVE)
    if is_down:
        beside.restarted()
        await beside.begin()
    else:
        await beside.follow()
    assert not (beside.root / ".Archive.2026").exists()
    await filled(beside, 7, mailbox=ARCHIVE)
    await beside.follow()
    await beside.is_equal()
    assert len(beside.names(".Archive.2026")) == 1


@pytest.mark.parametrize("is_down", [False, True], ids=["while it is followed", "while nothing runs"])
async def test_a_mailbox_that_is_renamed_rewrites_nothing(beside: Beside, is_down: bool) -> None:
    await filled(beside, 1, 2, mailbox=ARCHIVE)
    await filled(beside, 5, mailbox=MailboxName(b"Other"))
    await beside.begin()
    inodes = {(beside.root / ".Archive.2026" / name).stat().st_ino for name in beside.names(".Archive.2026")}
    await beside.store.mailbox_renamed("alice", ARCHIVE, MailboxName(b"Between"))
    await beside.store.mailbox_renamed("alice", MailboxName(b"Between"), MailboxName(b"Other"))
    if is_down:
        beside.restarted()
        await beside.begin()
    else:
        await beside.follow()
    assert {(beside.root / ".Other" / name).stat().st_ino for name in beside.names(".Other")} == inodes
    assert not (beside.root / ".Archive.2026").exists()
    assert not (beside.root / ".Between").exists()
    await beside.is_equal()


async def test_another_delimiter_renames_the_folders(beside: Beside) -> None:
    await filled(beside, 1, mailbox=ARCHIVE)
    beside.restarted(".")
    await beside.begin()
    assert len(beside.names(".Archive\\2f2026")) == 1
    beside.sink.learn("/")
    await beside.follow()
    assert len(beside.names(".Archive.2026")) == 1
    assert not (beside.root / ".Archive\\2f2026").exists()


async def test_the_delimiter_outlives_the_process(beside: Beside) -> None:
    await filled(beside, 1, mailbox=ARCHIVE)
    await beside.begin()
    beside.sink = Maildir(beside.root, "alice", beside.store)
    await beside.begin()
    await beside.is_equal()


async def test_two_mailboxes_that_look_alike_have_folders_of_their_own(beside: Beside) -> None:
    one, other = MailboxName(b"\xff"), MailboxName(b"\xfe")
    assert one.text == other.text
    await filled(beside, 1, mailbox=one)
    await beside.begin()
    await filled(beside, 2, 3, mailbox=other)
    await beside.follow()
    assert len(beside.names(".\\ff")) == 1
    assert len(beside.names(".\\fe")) == 2


async def test_a_folder_that_is_anothers_is_not_shared(beside: Beside) -> None:
    """As it is on a file system that does not tell `a` from `A`."""
    await filled(beside, 1, mailbox=MailboxName(b"archive"))
    await beside.begin()
    (beside.root / ".ARCHIVE").symlink_to(".archive")
    await filled(beside, 2, 3, mailbox=MailboxName(b"ARCHIVE"))
    await beside.follow()
    [apart] = [path.name for path in beside.root.iterdir() if "\\-" in path.name]
    assert apart.startswith(".ARCHIVE\\-")
    assert len(beside.names(".archive")) == 1
    assert len(beside.names(apart)) == 2


async def test_a_killed_process_leaves_nothing(beside: Beside) -> None:
    await filled(beside, 1)
    await beside.begin()
    [name] = beside.names()
    (beside.root / "tmp" / "1700000000.m1.idlepush").write_bytes(b"half")
    (beside.root / "tmp" / "idlepush-maildir").write_bytes(b"half")
    (beside.root / "tmp" / "1.M1.other").write_bytes(b"not ours")
    (beside.root / name).rename(beside.root / "cur" / (Path(name).name + ":2,T"))
    (beside.root / name).write_bytes(b"twice")
    beside.restarted()
    await beside.begin()
    assert [Path(path).name for path in beside.leftovers()] == ["1.M1.other"]
    assert len(beside.names()) == 1


async def test_files_of_another_store_are_not_taken_for_ours(beside: Beside) -> None:
    await filled(beside, 1, 2)
    await beside.begin()
    for name in beside.names():
        (beside.root / name).write_bytes(b"of the store before")
    beside.cursor = None
    beside.restarted()
    await beside.begin()
    await beside.is_equal()


async def test_many_files_are_compared_in_several_goes(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "AT_ONCE", 7)
    generation = await filled(beside, *range(1, 101))
    await beside.begin()
    await beside.is_equal()
    for name in beside.names()[::3]:
        (beside.root / name).unlink()
    await beside.store.commit(changes(generation, expunged=UidSet.range(40, 60), flags={Uid(9): flags("\\Seen")}))
    beside.restarted()
    await beside.begin()
    await beside.is_equal()


async def test_a_backlog_of_events_is_followed(beside: Beside) -> None:
    generation = await begin(beside.store)
    await beside.begin()
    await beside.store.commit(changes(generation, new=tuple(message(uid) for uid in range(1, 601))))
    await beside.store.commit(
        changes(generation, flags={Uid(uid): flags("\\Seen") for uid in range(1, 600, 2)}, expunged=UidSet.range(5, 99))
    )
    await beside.follow()
    await beside.is_equal()
    await beside.store.commit(changes(generation, flags={Uid(uid): flags("\\Flagged") for uid in range(100, 600)}))
    await beside.follow()
    await beside.is_equal()


async def test_pythons_own_reader_reads_it(beside: Beside) -> None:
    generation = await begin(beside.store)
    await beside.store.commit(changes(generation, new=(message(1, flags=flags("\\Seen", "\\Flagged")), message(2))))
    await filled(beside, 3, mailbox=ARCHIVE)
    await beside.begin()
    reader = mailbox.Maildir(str(beside.root), create=False)
    read = {one["Subject"]: (one.get_flags(), one.get_subdir(), one.get_date()) for one in reader}
    dates = [(START - timedelta(days=1) + timedelta(minutes=uid)).timestamp() for uid in (1, 2)]
    assert read == {"1": ("FS", "cur", dates[0]), "2": ("", "new", dates[1])}
    assert reader.list_folders() == ["Archive.2026"]
    assert [one["Subject"] for one in reader.get_folder("Archive.2026")] == ["3"]


async def sentence_of(beside: Beside) -> str:
    with pytest.raises(SinkFailed) as caught:
        await beside.begin()
    return str(caught.value)


async def test_a_folder_with_something_else_in_it_is_refused(beside: Beside) -> None:
    beside.root.mkdir(parents=True)
    (beside.root / "letters.txt").write_text("dear")
    assert await sentence_of(beside) == (
        f"{beside.root} is neither empty nor a Maildir: name another folder for this account"
    )
    assert [path.name for path in beside.root.iterdir()] == ["letters.txt"]


async def test_a_maildir_that_a_killed_process_had_begun_is_finished(beside: Beside) -> None:
    (beside.root / "new").mkdir(parents=True)
    await filled(beside, 1)
    await beside.begin()
    await beside.is_equal()


async def test_a_file_is_refused(beside: Beside) -> None:
    beside.root.parent.mkdir(parents=True)
    beside.root.write_text("dear")
    assert "is not a folder" in await sentence_of(beside)


async def test_the_maildir_of_another_account_is_refused(beside: Beside) -> None:
    await beside.begin()
    beside.sink = Maildir(beside.root, "bob", beside.store)
    beside.sink.learn("/")
    assert "is the Maildir of another account" in await sentence_of(beside)


async def test_a_marker_that_cannot_be_read_is_a_sentence(beside: Beside) -> None:
    await beside.begin()
    (beside.root / "idlepush-maildir").write_bytes(b"\xff")
    assert "idlepush-maildir cannot be read" in await sentence_of(beside)


async def test_an_existing_maildir_is_taken_as_it_is(beside: Beside) -> None:
    beside.root.parent.mkdir(parents=True)
    reader = mailbox.Maildir(str(beside.root), create=True)
    reader.add(b"Subject: mine\n\nhello\n")
    await filled(beside, 1)
    await beside.begin()
    assert sorted(one["Subject"] for one in reader) == ["1", "mine"]


async def test_a_folder_that_is_removed_meanwhile_is_trouble_and_comes_back(beside: Beside) -> None:
    generation = await filled(beside, 1)
    await beside.begin()
    for place in ("new", "cur"):
        for path in (beside.root / place).iterdir():
            path.unlink()
        (beside.root / place).rmdir()
    (beside.root / "tmp").rmdir()
    await beside.store.commit(changes(generation, new=(message(2),)))
    with pytest.raises(SinkFailed, match="cannot be written: no such file"):
        await beside.follow()
    await beside.begin()
    await beside.is_equal()
