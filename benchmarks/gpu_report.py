"""Everything worth knowing from one GPU, in one file and within a time budget."""

from __future__ import annotations

import datetime as dt
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import SEED, Case
from benchmarks.environment import REPOSITORY, clocks, describe
from benchmarks.harness import Row
from benchmarks.report import console, document, run_and_show, write_json
from benchmarks.roofline import peaks_of

# The tests may take this share of the budget; the cases get what is left.
_TEST_SHARE = 0.5
_TESTS_PASSED = "exit code 0"
# How long pytest may take to write its results after it is interrupted.
_GRACE_S = 20.0
_SHOWN_CHARS = 300  # of a failure's message; the file has all of it


def run(cases: Sequence[Case[Any]], out: Path | None, budget_s: float) -> int:
    """Runs the GPU tests, then the cases at real shapes, and writes one JSON file.

    The file is written anew after every case, so a run that is cut short leaves what it has.

    Args:
        cases: What to time, in this order.
        out: The file; by default benchmarks/results/<device>_<date>_<commit>.json.
        budget_s: Seconds after which the remaining shapes are only listed as not run.

    Returns:
        0, or 1 when a test failed, the tests did not come to their end, a result was wrong or a
        shape failed.

    Raises:
        ValueError: The GPU is not in the table of peaks, or the budget is not positive.
    """
    if not budget_s > 0:
        raise ValueError(f"gpu_report: budget_s must be positive, got {budget_s:g}")
    start = time.monotonic()
    device = torch.device("cuda")
    peaks = peaks_of(device)
    described = describe(device)
    path = out or REPOSITORY / "benchmarks" / "results" / file_name(described)
    screen = console()
    screen.print("running pytest -m gpu")
    tests = run_gpu_tests(_TEST_SHARE * budget_s)
    screen.print("\n".join(summary(tests)) + "\n", markup=False)
    rows: list[Row] = []

    def save() -> None:
        extra = {"shapes": "real", "tests": tests, "clocks_at_end": clocks(device)}
        write_json(path, document(rows, described, peaks, SEED, **extra))

    save()
    for case in cases:
        run_and_show([case], rows, screen, "real", device, peaks, deadline=start + budget_s)
        save()
    screen.print(f"wrote {path} after {time.monotonic() - start:.0f} s")
    broken = any(row.status in {"wrong", "failed"} for row in rows)
    return int(broken or tests["ended"] != _TESTS_PASSED)


def file_name(described: dict[str, object]) -> str:
    """Returns <device>_<date>_<commit>.json, with nothing in it that a shell would mind."""
    device = re.sub(r"[^A-Za-z0-9]+", "-", str(described["device"])).strip("-").lower()
    date = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d")
    return f"{device}_{date}_{described['commit']}.json"


def run_gpu_tests(timeout_s: float) -> dict[str, Any]:
    """Runs `pytest -m gpu` in a process of its own.

    Returns:
        Counts (passed, failed, skipped), the failures as {test, message}, how pytest ended, and
        what tests have measured: {test: {name: value}} of their `record_property`.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
        ended, errors = run_within([*command, f"--junitxml={results}", "tests"], timeout_s)
        if not results.exists():
            return _counts([], f"{ended}: {errors.strip()[-500:]}")
        return counts_of(results, ended)


def counts_of(results: Path, ended: str) -> dict[str, Any]:
    """Returns what `run_gpu_tests` does, from the file that pytest has written."""
    tree = ET.parse(results)  # noqa: S314 (pytest wrote it a moment ago)
    return _counts(list(tree.iter("testcase")), ended)


def run_within(command: Sequence[str], timeout_s: float) -> tuple[str, str]:
    """Runs a command, and interrupts it after a time so that it still writes down what it has.

    Returns:
        How it ended, and what it wrote to stderr.
    """
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:  # a kernel that hangs is not interrupted
            process.kill()
            _, errors = process.communicate()
        return f"ended after {timeout_s:.0f} s", errors
    return f"exit code {process.returncode}", errors


def summary(tests: dict[str, Any]) -> list[str]:
    """Returns lines for people: counts, what failed and why, what was measured."""
    counts = [f"{len(tests['failures'])} failed"]
    counts += [f"{tests[outcome]} {outcome}" for outcome in ("passed", "skipped")]
    failed = [
        f"  FAILED {failure['test']}: {(failure['message'] or '')[:_SHOWN_CHARS]}"
        for failure in tests["failures"]
    ]
    measured = [
        f"  {test}: {name}: {value}"
        for test, values in tests["measured"].items()
        for name, value in values.items()
    ]
    return [f"{', '.join(counts)} ({tests['ended']})", *failed, *measured]


def _counts(tests: Sequence[ET.Element], ended: str) -> dict[str, Any]:
    skipped = sum(test.find("skipped") is not None for test in tests)
    failures = [
        {"test": f"{test.get('classname')}::{test.get('name')}", "message": failure.get("message")}
        for test in tests
        for failure in (*test.findall("failure"), *test.findall("error"))
    ]
    passed = len(tests) - skipped - len({failure["test"] for failure in failures})
    measured = {
        f"{test.get('classname')}::{test.get('name')}": values
        for test in tests
        if (values := {p.get("name"): p.get("value") for p in test.iterfind("properties/property")})
    }
    return {
        "passed": passed,
        "skipped": skipped,
        "failures": failures,
        "ended": ended,
        "measured": measured,
    }
