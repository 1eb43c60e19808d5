"""Fuzzes the simulator: random texts, kernels and launches, until one crashes it or time is up."""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.simulator.fuzz import campaign
from tests.simulator.fuzz.texts import TEXTS, compiled

_AT_A_TIME = 2000  # cases of one kind in a process


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulator.fuzz",
        description=__doc__,
        epilog="Ends with 1 at the first finding, which it prints and keeps in a file. A finding's "
        "command line plays that case again.",
    )
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="decides all cases (default: 0)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--count", type=int, help="how many cases of each kind (default: no end)")
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=campaign.KINDS,
        default=list(campaign.KINDS),
        help="text: changed PTX; runs: random kernels; launches: random arguments",
    )
    parser.add_argument(
        "--compiled",
        action="store_true",
        help="also changes the PTX of our kernels (needs NVRTC) and of Triton's (needs Triton)",
    )
    parser.add_argument(
        "--sanitize",
        action="store_true",
        help="runs a core built with AddressSanitizer and UndefinedBehaviorSanitizer (needs g++)",
    )
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    counts = {kind: Counter[str]() for kind in options.kinds}
    with tempfile.TemporaryDirectory() as folder:
        texts = sorted(TEXTS.glob("*.ptx"))
        texts += compiled(Path(folder)) if options.compiled else []
        first, left = options.first, options.count or 10**12
        while left > 0 and time.monotonic() < end:
            for kind in options.kinds:
                try:
                    counts[kind] += campaign.play(
                        kind,
                        options.seed,
                        first=first,
                        count=min(left, _AT_A_TIME),
                        seconds=max(1, min(60, end - time.monotonic())),
                        sanitize=options.sanitize,
                        texts=texts,
                    )
                except campaign.FindingError as finding:
                    print(finding)
                    return 1
            first, left = first + _AT_A_TIME, left - _AT_A_TIME
    for kind, ended in counts.items():
        print(f"{kind}: {ended.total()} cases", dict(ended.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
