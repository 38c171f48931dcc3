"""The messages are what their names say, and always the same."""

from tests.peers.fake import FakeImap
from tests.peers.mails import KINDS, MAILS, NOT_OVER_LMTP, mails, make


def test_the_same_seed_gives_the_same_messages() -> None:
    assert list(mails(50, seed=3)) == list(mails(50, seed=3))
    assert list(mails(50, seed=3)) != list(mails(50, seed=4))
    assert make("plain") == MAILS["plain"] != make("plain", seed=1)


def test_each_kind_holds_what_its_name_says() -> None:
    assert set(MAILS) == {kind.__name__ for kind in KINDS}
    assert set(MAILS) >= NOT_OVER_LMTP
    assert MAILS["empty"] == b""
    assert b"\0" in MAILS["nul_bytes"]
    assert b"Message-ID" not in MAILS["no_message_id"]
    assert b"Message-ID: <the-same@example.org>" in make("same_message_id", seed=7)
    assert len(MAILS["large"]) > 256 * 1024
    assert 2_900_000 < len(MAILS["huge"]) < 3_200_000
    assert max(map(len, MAILS["long_lines"].split(b"\r\n"))) >= 20_000


def test_headers_and_texts_of_all_kinds_add_up() -> None:
    fake = FakeImap()
    for raw in MAILS.values():
        message = fake.mailbox().message(fake.deliver(raw))
        assert message.header + message.text == raw
