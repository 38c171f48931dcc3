"""pymap runs beside the tests and can be delivered to and read."""

from tests.peers.pymap_server import PymapServer


def test_a_message_delivered_is_read_by_its_user_alone() -> None:
    with PymapServer(["alice", "bob"]) as server:
        first = server.deliver("alice", b"Subject: one\r\n\r\nbody\r\n", flags=[r"\Flagged"])
        second = server.deliver("alice", b"Subject: two\r\n\r\n")
        assert second == first + 1
        with server.imap("alice") as reader:
            assert reader.select("INBOX", readonly=True) == ("OK", [b"2"])
            _, answered = reader.uid("FETCH", str(first), "(BODY.PEEK[])")
            assert answered[0][1] == b"Subject: one\r\n\r\nbody\r\n"
        with server.imap("bob") as reader:
            assert reader.select("INBOX", readonly=True) == ("OK", [b"0"])
