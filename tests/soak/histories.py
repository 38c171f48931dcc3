"""Random histories on real servers, as many as asked: `python -m tests.soak.histories --seeds 2000 [--mode qresync]`.

One that went wrong is run again alone by `--mode … --seed N`.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.live.histories.history import MODES, run


def main() -> int:
    """Run them a batch at a time, mode by mode, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200, help="how many, over all modes")
    parser.add_argument("--from", dest="first", type=int, default=10_000, help="the first seed")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--mode", choices=sorted(MODES), help="one kind of server (default: all in turn)")
    parser.add_argument("--batch", type=int, default=50, help="accounts at a time")
    parser.add_argument("--rounds", type=int, default=4)
    asked = parser.parse_args()
    modes = [asked.mode] if asked.mode else list(MODES)
    done, failed, batch = 0, 0, 0
    total = len(modes) if asked.seed is not None else asked.seeds
    while done < total:
        mode = modes[batch % len(modes)]
        seeds = range(asked.first + done, asked.first + min(done + asked.batch, total))
        if asked.seed is not None:
            seeds = range(asked.seed, asked.seed + 1)
        begun = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="idlepush-histories-"))
        try:
            outcome = run(mode, seeds, folder, rounds=asked.rounds)
        except AssertionError as error:
            failed += 1
            print(f"{error}\nmirror and logs are kept in {folder}", flush=True)
        else:
            shutil.rmtree(folder)
            print(
                f"{mode}: seeds {seeds[0]} to {seeds[-1]} in {time.monotonic() - begun:.0f} s, {outcome.events} "
                f"events, {outcome.moved} messages moved, equal {statistics.median(outcome.settled):.1f} s after "
                f"the last act (most {max(outcome.settled):.1f})",
                flush=True,
            )
        done += len(seeds)
        batch += 1
    print(f"{done} histories, {failed} batches failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
