"""Two hundred random histories on real servers: after every quiet moment mirror, log and server agree."""

import os
import statistics
import sys
from pathlib import Path

import pytest

from tests.live.histories.history import MODES, run
from tests.peers.dovecot import missing

SEEDS = int(os.environ.get("IDLEPUSH_HISTORIES", "50"))
"""So many on each kind of server."""
AIM = 4.0
"""Seconds from the last act until all are equal (two polls): printed; the test waits ten times that and more."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=[] if mode == "pymap" else [pytest.mark.dovecot]) for mode in MODES]
)
def test_any_history_of_an_account_ends_with_mirror_log_and_server_equal(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if mode != "pymap" and (lack := missing()):
        assert os.environ.get("CI") != "true", lack
        pytest.skip(lack)
    outcome = run(mode, range(SEEDS), tmp_path)
    with capsys.disabled():
        print(
            f"\n{mode}: {outcome.seeds} histories, {outcome.events} events, {outcome.moved} messages moved, "
            f"{outcome.kicked} sessions with an old list; equal "
            f"{statistics.median(outcome.settled):.1f} s after the last act, most {max(outcome.settled):.1f} s "
            f"(aim: {AIM} s)",
            file=sys.stderr,
        )
    assert outcome.kicked <= SEEDS / 10, "it is not the server that tells an old list so often"
