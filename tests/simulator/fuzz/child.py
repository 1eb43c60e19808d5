"""The process that plays random cases, and dies if the simulator makes it die.

It is told all by its one argument, JSON, and prints how often cases ended how, as JSON. What it
plays at the moment stands in a file, for whoever finds it dead.
"""

import collections
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import torch

from csrc import native, simulator
from tests.simulator.fuzz import cases, launches

CASE_LIMIT_S = 60
_MEMORY_BYTES = 3 << 30  # beyond what Python and torch have mapped


def _limit_memory() -> None:
    """So that what asks for gigabytes gets a MemoryError, which is a defect."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _canary(number: int) -> None:
    """What a test plants, to see that it would be found."""
    what = os.environ.get("OPENWEEK_FUZZ_CANARY")
    if what is None or number != 3:
        return
    if what == "abort":
        os.abort()
    if what == "hang":
        signal.alarm(1)
        while True:
            time.sleep(1)
    if what == "memory":
        bytearray(2 * _MEMORY_BYTES)
    raise IndexError("map::at")


def main() -> None:
    given: dict[str, Any] = json.loads(sys.argv[1])
    torch.set_num_threads(2)
    if given["core"]:
        core = native._import("openweek_simulator", Path(given["core"]))
        simulator.core = lambda: core  # type: ignore[assignment]
    else:
        simulator.core()
        _limit_memory()
    texts = [Path(path).read_text(encoding="utf-8") for path in given["texts"]]
    case = Path(given["folder"]) / "case.txt"
    counts: collections.Counter[str] = collections.Counter()
    end = time.monotonic() + given["seconds"]
    for number in range(given["first"], given["first"] + given["count"]):
        if time.monotonic() > end:
            break
        case.write_text(f"// case {number}\n", encoding="utf-8")
        signal.alarm(CASE_LIMIT_S)  # its default ends the process, wherever it is
        with cases.outcome():
            _canary(number)
        random = Random(f"{given['kind']}/{given['seed']}/{number}")

        def note(part: str) -> None:
            with case.open("a", encoding="utf-8") as file:
                file.write(part)

        if given["kind"] == "launches":
            counts[launches.play(random, note)] += 1
        else:
            counts[cases.play(given["kind"], random, texts, note)] += 1
    signal.alarm(0)
    sys.stdout.write("\n" + json.dumps(counts) + "\n")  # behind what kernels have printed


if __name__ == "__main__":
    main()
