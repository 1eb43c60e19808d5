"""The report of one GPU: its test counts, its file and its budget, without a GPU."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import environment, gpu_report
from tests.benchmarks.made_up import CPU, PEAKS, double_case

_JUNIT = """<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite>
<testcase classname="tests.a" name="passes"/>
<testcase classname="tests.a" name="waits"><skipped message="no reason"/></testcase>
<testcase classname="tests.a" name="fails"><failure message="1 != 2">trace</failure></testcase>
<testcase classname="tests.a" name="breaks"><error message="no fixture">trace</error></testcase>
</testsuite></testsuites>"""


def _pytest_that(monkeypatch: pytest.MonkeyPatch, behave: Any) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:5] == ["-m", "pytest", "-m", "gpu"]
        (option,) = (part for part in command if part.startswith("--junitxml="))
        return behave(Path(option.partition("=")[2]))  # type: ignore[no-any-return]

    monkeypatch.setattr(subprocess, "run", run)


def test_counts_and_failures_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    def behave(results: Path) -> subprocess.CompletedProcess[str]:
        results.write_text(_JUNIT)
        return subprocess.CompletedProcess([], 1)

    _pytest_that(monkeypatch, behave)
    assert gpu_report.run_gpu_tests(9) == {
        "passed": 1,
        "skipped": 1,
        "failures": [
            {"test": "tests.a::fails", "message": "1 != 2"},
            {"test": "tests.a::breaks", "message": "no fixture"},
        ],
        "ended": "exit code 1",
    }


def test_tests_that_take_too_long_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def behave(_: Path) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired("pytest", 9)

    _pytest_that(monkeypatch, behave)
    counts = gpu_report.run_gpu_tests(9)
    assert counts == {"passed": 0, "skipped": 0, "failures": [], "ended": "ended after 9 s"}


def test_pytest_that_does_not_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    _pytest_that(
        monkeypatch, lambda _: subprocess.CompletedProcess([], 4, stderr="no module named pytest\n")
    )
    assert gpu_report.run_gpu_tests(9)["ended"] == "exit code 4: no module named pytest"


def test_file_name_is_fit_for_a_shell() -> None:
    name = gpu_report.file_name({"device": "NVIDIA H100 80GB HBM3", "commit": "abc123-dirty"})
    start, date, end = name.split("_")
    assert (start, end) == ("nvidia-h100-80gb-hbm3", "abc123-dirty.json")
    assert len(date) == len("2026-01-31")


@pytest.mark.parametrize(("budget_s", "status"), [(60.0, "ok"), (1e-9, "not run")])
def test_report_holds_tests_and_cases_within_the_budget(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, budget_s: float, status: str
) -> None:
    tests = {"passed": 3, "skipped": 0, "failures": [], "ended": "exit code 0"}
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
    tests = {"passed": 0, "skipped": 0, "failures": [], "ended": ended}
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
