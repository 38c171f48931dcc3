"""What reading costs, each beside the least that the same octets could cost: `python tests/benchmarks/bench_imap.py`.

Figures of one machine mean little on another; the ratio to the limit of the same run does.
"""

import gc
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from idlepush.imap.framing import Framer
from idlepush.imap.grammar import parse
from idlepush.imap.uidset import UidSet
from idlepush.sync.message import headers_of

READ = 256 * 1024
ROUNDS = 5

MAIL = (
    b"Return-Path: <joerg@example.org>\r\n"
    + b"Received: from mx.example.org (mx.example.org [192.0.2.1])\r\n\tby mail.example.com with ESMTPS id 4Xyz\r\n"
    b"\tfor <bob@example.com>; Fri, 21 Nov 1997 09:55:06 -0600 (CST)\r\n"
    * 4
    + b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org;\r\n"
    + b"\tb=dGhpcyBpcyBub3QgYSBzaWduYXR1cmUgYnV0IGl0IGxvb2tzIGxpa2Ugb25l\r\n" * 6
    + b"From: =?utf-8?Q?J=C3=B6rg?= Meier <joerg@example.org>\r\n"
    b'To: "Bob, the Builder" <bob@example.com>, alice@example.com\r\n'
    b"Subject: =?utf-8?B?R3LDvMOfZQ==?= from here\r\n"
    b"Date: Fri, 21 Nov 1997 09:55:06 -0600\r\n"
    b"Message-ID: <1234@local.machine.example>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + b"A line of text.\r\n" * 2400
)
FLAG_LINES = b"".join(b"* %d FETCH (UID %d FLAGS (\\Seen $Work))\r\n" % (n, n + 9) for n in range(1, 100_001))
LISTING = b"".join(
    b'* %d FETCH (UID %d RFC822.SIZE %d FLAGS (\\Seen) INTERNALDATE "17-Jul-1996 02:44:25 -0700" MODSEQ (%d))\r\n'
    % (n, n + 9, n * 7, n + 5)
    for n in range(1, 50_001)
)
FOUND = b" ".join(b"%d" % uid for uid in range(1, 400_001, 2))


def best(work: Callable[[], object]) -> float:
    """Return the seconds of the quickest of some rounds."""
    taken = []
    for _ in range(ROUNDS):
        gc.collect()
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def cut(stream: bytes) -> list[bytes]:
    return [stream[at : at + READ] for at in range(0, len(stream), READ)]


def frame(reads: Iterable[bytes]) -> int:
    framer = Framer()
    return sum(len(framer.feed(read)) for read in reads)


def frame_and_parse(reads: Iterable[bytes]) -> None:
    framer = Framer()
    for read in reads:
        for one in framer.feed(read):
            parse(one)


def report(name: str, amount: float, unit: str, ours: float, limit_name: str, limit: float) -> None:
    print(
        f"{name:34} {amount / ours:12,.1f} {unit:10} {limit_name:28} {amount / limit:14,.1f} {unit:10}"
        f" ratio {ours / limit:6.2f}"
    )


def bodies_of(size: int) -> None:
    body = (MAIL * (size // len(MAIL) + 1))[:size]
    one = b"* 1 FETCH (UID 5 FLAGS (\\Seen) RFC822.SIZE %d BODY[] {%d}\r\n%b)\r\n" % (size, size, body)
    stream = one * (40_000_000 // len(one))
    reads = cut(stream)
    offsets = range(0, len(stream), len(one))
    copying = best(lambda: [stream[at : at + len(one)] for at in offsets])
    ours = best(lambda: frame(reads))
    report(f"framing, bodies of {size:,}", len(stream) / 1e6, "MB/s", ours, "one copy", copying)


def flag_lines() -> None:
    reads = cut(FLAG_LINES)
    lines = FLAG_LINES.count(b"\n") / 1e3
    splitting = best(lambda: FLAG_LINES.split(b"\r\n"))
    report("framing, flag lines", lines, "k lines/s", best(lambda: frame(reads)), "bytes.split", splitting)
    pattern = re.compile(rb"\* ([0-9]+) FETCH \(UID ([0-9]+) FLAGS \(([^)]*)\)\)\r\n")
    matching = best(lambda: pattern.findall(FLAG_LINES))
    report(
        "framing and reading, flag lines",
        lines,
        "k lines/s",
        best(lambda: frame_and_parse(reads)),
        "re.findall",
        matching,
    )
    listed = cut(LISTING)
    pattern = re.compile(
        rb"\* ([0-9]+) FETCH \(UID ([0-9]+) RFC822.SIZE ([0-9]+) FLAGS \(([^)]*)\)"
        rb' INTERNALDATE "([^"]*)" MODSEQ \(([0-9]+)\)\)\r\n'
    )
    matching = best(lambda: pattern.findall(LISTING))
    ours = best(lambda: frame_and_parse(listed))
    report("framing and reading, a listing", LISTING.count(b"\n") / 1e3, "k lines/s", ours, "re.findall", matching)


def sets() -> None:
    line = cut(b"* SEARCH " + FOUND + b"\r\n")
    ours = best(lambda: frame_and_parse(line))
    limit = best(lambda: sorted(map(int, FOUND.split())))
    report("SEARCH of 200,000, sparse", 200, "k UIDs/s", ours, "split, int and sort", limit)
    odd, even = UidSet.from_uids(range(1, 400_000, 2)), UidSet.from_uids(range(2, 400_000, 2))
    limit = best(lambda: sorted(odd.ranges + even.ranges))
    report("union of two such", 400, "k ranges/s", best(lambda: odd | even), "one merge", limit)


def headers() -> None:
    limit = best(lambda: [MAIL[: MAIL.find(b"\r\n\r\n")].split(b"\r\n") for _ in range(1000)])
    ours = best(lambda: [headers_of(MAIL) for _ in range(1000)])
    report("headers_of", 1, "k mails/s", ours, "splitting the header", limit)
    print(f"{'':34} {ours * 1e3:12,.1f} µs a mail")


if __name__ == "__main__":
    for octets in (4_000, 40_000, 4_000_000):
        bodies_of(octets)
    flag_lines()
    sets()
    headers()
