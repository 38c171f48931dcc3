"""Kill the service at random moments under a workload, as often as asked: `python -m tests.soak.kill --kills 200`."""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from tests.live.storm import storm
from tests.peers.dovecot import Dovecot


def main() -> None:
    """Run it and say how it went."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--kills", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=int(time.time()))
    asked = arguments.parse_args()
    print(f"seed {asked.seed}, {asked.kills} kills", flush=True)
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="idlepush-soak-"))
    print(f"mirror and logs are kept in {folder} if it fails", flush=True)
    with Dovecot() as server:
        storm(server, "soak", folder, kills=asked.kills, seed=asked.seed)
    shutil.rmtree(folder)
    print(
        f"{asked.kills} kills in {time.monotonic() - begun:.0f} s: nothing lost, nothing doubled, verify --deep clean"
    )


if __name__ == "__main__":
    main()
