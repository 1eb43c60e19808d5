"""Random cases in a process of their own, so that what ends it is a finding and not the end."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from csrc import native, simulator
from tests.simulator.fuzz.texts import TEXTS

KINDS = ("text", "runs", "launches")
_SANITIZE = (
    *("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
    "-D_GLIBCXX_ASSERTIONS",
    "-fno-sanitize=nonnull-attribute",  # to copy no bytes from nowhere is well defined since C2y
)
_SANITIZERS = ("libasan.so", "libubsan.so")


class FindingError(AssertionError):
    """A case that ended the process, or ended with what it must not; the text says how to see it.

    Attributes:
        case: The number of the case.
    """

    def __init__(self, message: str, case: int) -> None:
        super().__init__(message)
        self.case = case


def play(
    kind: str,
    seed: int,
    *,
    count: int,
    first: int = 0,
    seconds: float = 1e9,
    sanitize: bool = False,
    texts: Sequence[Path] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Counter[str]:
    """Plays cases of a kind, numbered from `first`, and counts how they ended.

    Args:
        kind: One of KINDS.
        seed: Of the case numbered n, seed and n decide all.
        count: How many.
        first: The number of the first.
        seconds: Begins no case after so many.
        sanitize: With a core that finds accesses out of bounds and undefined behaviour.
        texts: PTX to change; by default that of the tests.
        environment: Added to the process's.

    Raises:
        FindingError: on the first case that is one.
    """
    with tempfile.TemporaryDirectory() as folder:
        given = {
            "kind": kind,
            "seed": seed,
            "first": first,
            "count": count,
            "seconds": seconds,
            "core": str(_sanitized_core()) if sanitize else "",
            "texts": [str(path) for path in (texts or sorted(TEXTS.glob("*.ptx")))],
            "folder": folder,
        }
        result = subprocess.run(
            [sys.executable, "-m", "tests.simulator.fuzz.child", json.dumps(given)],
            cwd=Path(__file__).parents[3],
            env={**os.environ, **(_sanitizer() if sanitize else {}), **(environment or {})},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if result.returncode == 0:
            return Counter(json.loads(result.stdout.splitlines()[-1]))
        case = Path(folder) / "case.txt"
        text = case.read_text(encoding="utf-8") if case.is_file() else "// case -1: it never began"
    found = re.match(r"// case (-?\d+)", text)
    number = int(found[1]) if found else -1
    kept = Path(tempfile.gettempdir()) / f"openweek_fuzz_{kind}_{seed}_{number}.txt"
    kept.write_text(text, encoding="utf-8")
    raise FindingError(
        f"{kind} case {number} of seed {seed}: {_end(result.returncode)}\n"
        f"again: python -m tests.simulator.fuzz --kinds {kind} --seed {seed} --first {number} "
        f"--count 1{' --sanitize' if sanitize else ''}\n"
        f"the case is kept in {kept}:\n{text[-6000:]}\n"
        f"what the process said:\n{result.stderr[-4000:]}",
        number,
    )


def _end(code: int) -> str:
    if code >= 0:
        return f"the process ended with {code}"
    name = signal.Signals(-code).name
    return f"the process died of {name}" + (" (the case took too long)" if code == -14 else "")


def _sanitized_core() -> Path:
    folder = Path(simulator.__file__).parent
    sources = sorted(path for path in folder.glob("*.cpp") if "_binding" not in path.name)
    flags = ("-ffp-contract=off", "-frounding-math", "-DMODULE_NAME=openweek_simulator")
    return native.build(
        "openweek_simulator", sources, include_dirs=[folder], flags=(*flags, *_SANITIZE)
    )


def _sanitizer() -> dict[str, str]:
    found = [
        subprocess.run(
            ["g++", f"-print-file-name={name}"], capture_output=True, encoding="utf-8", check=True
        ).stdout.strip()
        for name in _SANITIZERS
    ]
    return {
        "LD_PRELOAD": " ".join(found),
        # Python leaks on purpose; torch's and ours are checked for bounds.
        "ASAN_OPTIONS": "detect_leaks=0:hard_rss_limit_mb=6000",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
