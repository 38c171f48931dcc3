"""`python -m tests.fuzz [--minutes 5] [--seed N] [TARGET…]`: fuzz, print what was found, exit 1 where something was."""

import argparse
import secrets

from tests.fuzz.campaign import run
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--minutes", type=float, default=5.0, help="altogether")
    parser.add_argument("--seed", type=int, default=None, help="the same inputs again; default: drawn and printed")
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    targets = [TARGETS[name] for name in arguments.targets or TARGETS]
    seed = secrets.randbelow(2**32) if arguments.seed is None else arguments.seed
    found = 0
    for target in targets:
        report = run(target, seed=seed, seconds=60 * arguments.minutes / len(targets))
        print(report, flush=True)
        for finding in report.findings:
            print(finding, flush=True)
        found += len(report.findings)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
