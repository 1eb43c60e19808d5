"""The report of one GPU: its test counts, its file and its budget, without a GPU."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import environment, gpu_report
from tests.benchmarks.made_up import CPU, PEAKS, double_case

_JUNIT = """<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite>
<testcase classname="tests.a" name="passes"><properties><property name="bits" value="13"/>
<property name="share" value="0.5"/></properties></testcase>
<testcase classname="tests.a" name="waits"><skipped message="no reason"/></testcase>
<testcase classname="tests.a" name="fails"><failure message="1 != 2">trace</failure></testcase>
<testcase classname="tests.a" name="breaks"><error message="no fixture">trace</error></testcase>
</testsuite></testsuites>"""


_TESTS = {
    "passed": 1,
    "skipped": 1,
    "failures": [
        {"test": "tests.a::fails", "message": "1 != 2"},
        {"test": "tests.a::breaks", "message": "no fixture"},
    ],
    "ended": "exit code 1",
    "measured": {"tests.a::passes": {"bits": "13", "share": "0.5"}},
}
_NO_TESTS = {"passed": 0, "skipped": 0, "failures": [], "measured": {}}


def _pytest_that(
    monkeypatch: pytest.MonkeyPatch, ended: str, errors: str = "", results: str | None = None
) -> None:
    def run_within(command: list[str], timeout_s: float) -> tuple[str, str]:
        assert command[1:5] == ["-m", "pytest", "-m", "gpu"]
        assert timeout_s == 9
        (option,) = (part for part in command if part.startswith("--junitxml="))
        if results is not None:
            Path(option.partition("=")[2]).write_text(results)
        return ended, errors

    monkeypatch.setattr(gpu_report, "run_within", run_within)


def test_counts_failures_and_measurements_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    _pytest_that(monkeypatch, "exit code 1", results=_JUNIT)
    assert gpu_report.run_gpu_tests(9) == _TESTS


def test_pytest_that_does_not_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    _pytest_that(monkeypatch, "exit code 4", "no module named pytest\n")
    ended = "exit code 4: no module named pytest"
    assert gpu_report.run_gpu_tests(9) == {**_NO_TESTS, "ended": ended}


def test_people_see_what_failed_and_what_was_measured() -> None:
    assert gpu_report.summary(_TESTS) == [
        "2 failed, 1 passed, 1 skipped (exit code 1)",
        "  FAILED tests.a::fails: 1 != 2",
        "  FAILED tests.a::breaks: no fixture",
        "  tests.a::passes: bits: 13",
        "  tests.a::passes: share: 0.5",
    ]


def test_what_is_recorded_by_a_test_reaches_the_report(tmp_path: Path) -> None:
    """By pytest itself with this project's settings: it need not name things as we think."""
    test = tmp_path / "test_recorded.py"
    test.write_text("def test_it(record_property):\n    record_property('bits', 13)\n")
    results = tmp_path / "results.xml"
    settings = environment.REPOSITORY / "pyproject.toml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", str(settings)]
    ended, _ = gpu_report.run_within([*command, f"--junitxml={results}", str(test)], 60)
    counts = gpu_report.counts_of(results, ended)
    assert (counts["passed"], counts["ended"]) == (1, "exit code 0")
    assert list(counts["measured"].values()) == [{"bits": "13"}]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file whose appearance uses up a command's time of 9 s."""
    file = tmp_path / "started"
    communicate = subprocess.Popen.communicate

    def wait(process: Any, timeout: float | None = None) -> Any:
        if timeout != 9:
            return communicate(process, timeout=timeout)
        while not file.exists():
            time.sleep(0.01)
        raise subprocess.TimeoutExpired("command", timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", wait)
    return file


_IGNORES_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
_WRITES_AND_SLEEPS = """
import pathlib, sys, time
path = pathlib.Path(sys.argv[1])
try:
    path.write_text("started")
    time.sleep(600)
except KeyboardInterrupt:
    path.write_text("interrupted")
"""


def test_a_command_that_takes_too_long_may_still_write(started: Path) -> None:
    command = [sys.executable, "-c", _WRITES_AND_SLEEPS, str(started)]
    assert gpu_report.run_within(command, 9) == ("ended after 9 s", "")
    assert started.read_text() == "interrupted"


def test_a_command_that_cannot_be_interrupted_is_killed(
    started: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_report, "_GRACE_S", 0.1)
    command = [sys.executable, "-c", _IGNORES_INTERRUPTS + _WRITES_AND_SLEEPS, str(started)]
    assert gpu_report.run_within(command, 9) == ("ended after 9 s", "")
    assert started.exists()


def test_file_name_is_fit_for_a_shell() -> None:
    name = gpu_report.file_name({"device": "NVIDIA H100 80GB HBM3", "commit": "abc123-dirty"})
    start, date, end = name.split("_")
    assert (start, end) == ("nvidia-h100-80gb-hbm3", "abc123-dirty.json")
    assert len(date) == len("2026-01-31")


@pytest.mark.parametrize(("budget_s", "status"), [(60.0, "ok"), (1e-9, "not run")])
def test_report_holds_tests_and_cases_within_the_budget(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, budget_s: float, status: str
) -> None:
    tests = {**_NO_TESTS, "passed": 3, "ended": "exit code 0"}
    monkeypatch.setattr(gpu_report, "run_gpu_tests", lambda _: tests)
    monkeypatch.setattr(gpu_report, "peaks_of", lambda _: PEAKS)
    monkeypatch.setattr(gpu_report.torch, "device", lambda _: CPU)
    out = tmp_path / "report.json"
    assert gpu_report.run([double_case()], out, budget_s) == 0
    written = json.loads(out.read_text())
    assert written["tests"] == tests
    assert [(row["shape"], row["status"]) for row in written["rows"]] == [("rows=8", status)]
    assert {"device", "driver", "commit", "torch", "triton", "cuda"} <= written[
        "environment"
    ].keys()


@pytest.mark.parametrize("ended", ["exit code 1", "exit code 4: no pytest", "ended after 9 s"])
def test_tests_that_did_not_pass_make_the_report_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ended: str
) -> None:
    tests = {**_NO_TESTS, "ended": ended}
    monkeypatch.setattr(gpu_report, "run_gpu_tests", lambda _: tests)
    monkeypatch.setattr(gpu_report, "peaks_of", lambda _: PEAKS)
    monkeypatch.setattr(gpu_report.torch, "device", lambda _: CPU)
    assert gpu_report.run([double_case()], tmp_path / "report.json", 60.0) == 1


def test_report_wants_a_positive_budget() -> None:
    with pytest.raises(ValueError, match="gpu_report: budget_s must be positive, got 0"):
        gpu_report.run([], None, 0)


def test_commit_says_whether_files_differ_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "REPOSITORY", tmp_path)
    assert environment.commit() == "unknown"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
    clean = environment.commit()
    assert len(clean) == 12
    (tmp_path / "file").write_text("2")
    assert environment.commit() == f"{clean}-dirty"


def test_a_machine_without_nvidia_smi_has_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment.driver_version() is None
    assert environment.clocks(CPU) == {}
    assert environment.device_name(CPU)
    assert environment.cache_bytes(CPU) > 2**16


@pytest.mark.gpu
def test_a_gpu_tells_its_driver_and_clocks() -> None:
    device = torch.device("cuda")
    assert environment.driver_version()
    assert environment.clocks(device)["sm_clock_mhz"] > 0
    assert environment.cache_bytes(device) > 2**20
