"""Everything worth knowing from one GPU, in one file and within a time budget."""

from __future__ import annotations

import datetime as dt
import re
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
    screen.print(f"{tests}\n")
    rows: list[Row] = []
    for case in cases:
        run_and_show([case], rows, screen, "real", device, peaks, deadline=start + budget_s)
        extra = {"shapes": "real", "tests": tests, "clocks_at_end": clocks(device)}
        write_json(path, document(rows, described, peaks, SEED, **extra))
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
        Counts (passed, failed, skipped), the failures as {test, message}, and how pytest ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
        try:
            done = subprocess.run(
                [*command, f"--junitxml={results}", "tests"],
                cwd=REPOSITORY,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _counts([], f"ended after {timeout_s:.0f} s")
        if not results.exists():
            return _counts([], f"exit code {done.returncode}: {done.stderr.strip()[-500:]}")
        tree = ET.parse(results)  # noqa: S314 (pytest wrote it a moment ago)
        return _counts(list(tree.iter("testcase")), f"exit code {done.returncode}")


def _counts(tests: Sequence[ET.Element], ended: str) -> dict[str, Any]:
    skipped = sum(test.find("skipped") is not None for test in tests)
    failures = [
        {"test": f"{test.get('classname')}::{test.get('name')}", "message": failure.get("message")}
        for test in tests
        for failure in (*test.findall("failure"), *test.findall("error"))
    ]
    passed = len(tests) - skipped - len({failure["test"] for failure in failures})
    return {"passed": passed, "skipped": skipped, "failures": failures, "ended": ended}
