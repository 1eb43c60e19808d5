"""The command: what it prints and returns, what it refuses, and that it leaves no files."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as all_benchmarks
from benchmarks.graysort import __main__ as cli
from benchmarks.graysort import model, rounds, sizes
from benchmarks.graysort.records import generate
from tests.graysort import oracle
from tests.graysort.running import here

REPOSITORY = Path(__file__).parents[2]
SKEWED_FACTS = oracle.facts(oracle.sorted_records(generate(0, 2000, skewed=True).tobytes()))


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks start no processes, which take longer than such small sorts."""

    @contextlib.contextmanager
    def workers(*_: object) -> Iterator[object]:
        yield here()

    monkeypatch.setattr(cli, "smallpond_workers", workers)


def run(folder: Path, *arguments: str) -> int:
    return cli.main(["--data-root", str(folder), *arguments])


def test_report_of_a_run(
    tmp_path: Path, in_this_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "new/folder", "--bytes", "200k", "--skewed") == 0
    printed = capsys.readouterr().out
    assert "200 kB, 2,000 skewed records" in printed
    for phase in ("generate", "sample", "partition", "sort", "validate", "whole sort"):
        assert f"\n {phase} " in printed
    assert f"{SKEWED_FACTS.num_duplicates:,} duplicate keys" in printed
    assert f"checksum {SKEWED_FACTS.checksum:x}" in printed
    assert "valid: in order" in printed
    assert list((tmp_path / "new/folder").iterdir()) == []


def test_json_has_the_same_numbers(tmp_path: Path, in_this_process: None) -> None:
    file, data = tmp_path / "out.json", tmp_path / "data"
    arguments = ["--bytes", "200k", "--skewed", "--workers", "1", "--memory-limit", "200M"]
    assert run(data, *arguments, "--rounds", "3", "--json", str(file)) == 0
    document = json.loads(file.read_text())
    assert document["num_bytes"] == 200_000
    assert document["checksum"] == f"{SKEWED_FACTS.checksum:x}"
    assert document["num_duplicates"] == SKEWED_FACTS.num_duplicates > 0
    assert document["wrong"] == []
    assert (document["num_workers"], document["memory_limit_bytes"]) == (1, 200_000_000)
    assert document["phases"]["partition"]["bytes_written"] == 200_000
    assert document["phases"]["sort"]["num_tasks"] == document["plan"]["num_partitions"]
    runs = document["runs"]["graysort"]
    assert len(runs) == 3
    fastest = min(runs, key=lambda run: run["wall_s"])
    assert document["cpu_s_per_gb"] == pytest.approx(fastest["cpu_s"] / 200_000e-9)


def test_kept_files_are_input_and_output(tmp_path: Path, in_this_process: None) -> None:
    assert run(tmp_path, "--bytes", "50k", "--keep") == 0
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["input.dat", "sorted.dat"]
    data = (folder / "input.dat").read_bytes()
    assert data == generate(0, 500).tobytes()
    assert (folder / "sorted.dat").read_bytes() == oracle.sorted_records(data)


def test_peers_sort_the_same_data(
    tmp_path: Path, in_this_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.json"
    arguments = ["--bytes", "100k", "--skewed", "--peers", "--rounds", "1", "--keep"]
    assert run(tmp_path / "data", *arguments, "--json", str(file)) == 0
    document = json.loads(file.read_text())
    ran = set(document["runs"])
    assert ran | set(document["left_out"]) == {
        *("graysort", "duckdb", "duckdb-index", "polars", "numpy", "gnu-sort")
    }
    assert {"graysort", "numpy", "duckdb"} <= ran
    assert document["wrong"] == []
    printed = capsys.readouterr().out
    assert all(f"\n {name} " in printed for name in ran)
    kept = sorted(path.name for path in (tmp_path / "data").glob("*/*"))
    assert kept == ["input.dat", "sorted.dat"]


def test_only_the_peers_that_are_named(tmp_path: Path, in_this_process: None) -> None:
    file = tmp_path / "out.json"
    arguments = ["--bytes", "10k", "--peers", "numpy", "--rounds", "2", "--json", str(file)]
    assert run(tmp_path / "data", *arguments) == 0
    runs = json.loads(file.read_text())["runs"]
    assert {name: len(runs[name]) for name in runs} == {"graysort": 2, "numpy": 2}


def test_peer_that_cannot_run_here_is_named(
    tmp_path: Path,
    in_this_process: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    missing = {"duckdb", "polars"}
    monkeypatch.setattr(rounds, "find_spec", lambda name: None if name in missing else name)
    monkeypatch.setattr(rounds, "_has_gnu_sort", lambda: False)
    monkeypatch.setattr(rounds, "_available_bytes", lambda: 199_999)
    assert run(tmp_path, "--bytes", "100k", "--peers", "--rounds", "1") == 0
    printed = capsys.readouterr().out
    assert "not run: duckdb: duckdb is not installed" in printed
    assert "not run: polars: polars is not installed" in printed
    assert "not run: gnu-sort: this machine's sort is not GNU's" in printed
    assert "not run: numpy: needs about 200 kB of memory, 200 kB are available" in printed


def test_wrong_output_fails(
    tmp_path: Path,
    in_this_process: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def copy(source: Path, target: Path, runs: Path, plan: object, phases: object) -> None:
        del runs, plan, phases
        shutil.copyfile(source, target)

    monkeypatch.setattr(rounds, "sort_file", copy)
    assert run(tmp_path, "--bytes", "100k") == 1
    printed = capsys.readouterr().out
    assert "WRONG: graysort: " in printed
    assert "records are smaller than the one before" in printed
    assert "valid:" not in printed


def test_wrong_input_fails(
    tmp_path: Path,
    in_this_process: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(rounds.KNOWN_CHECKSUMS, 1000, 5)
    assert run(tmp_path, "--bytes", "100k") == 1
    assert "1000 records must have checksum 5, got 1f9ffe645ec" in capsys.readouterr().err
    assert run(tmp_path, "--bytes", "100k", "--skewed") == 0


MISTAKES = {
    "no number": (["--bytes", "ten"], "--bytes: size must be a number and K, M, G or T"),
    "bits of no unit": (["--bytes", "10i"], "--bytes: size must be a number"),
    "negative": (["--bytes=-100"], "--bytes: size must be a number"),
    "part of a record": (["--bytes", "1050"], r"must be a multiple of 100 .* \(take 1000\)"),
    "binary unit": (["--bytes", "1GiB"], "got 1073741824 .take 1073741800"),
    "nothing": (["--bytes", "0"], r"--bytes: size must be 1 to 2\^63 - 1 records, got 0"),
    "too much": (["--bytes", "10000000000T"], r"1 to 2\^63 - 1 records"),
    "little memory": (["--memory-limit", "50M"], "--memory-limit: memory must be at least"),
    "bad memory": (["--memory-limit", "x"], "--memory-limit: size must be a number"),
    "no workers": (["--workers", "0"], "--workers: number must be at least 1, got 0"),
    "no rounds": (["--rounds", "0"], "--rounds: number must be at least 1, got 0"),
    "unknown peer": (["--peers", "numpy,spark"], "--peers: peers must be some of .* got 'spark'"),
    "json in no folder": (["--json", "none/f.json"], "--json: output must be a file in an exist"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    given = [] if arguments[0].startswith("--bytes") else ["--bytes", "100k"]
    assert run(tmp_path / "data", *given, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("graysort: --")
    assert re.search(message, line)
    assert not (tmp_path / "data").exists()


def test_json_that_cannot_be_written(
    tmp_path: Path, in_this_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--bytes", "1k", "--json", "/proc/f.json") == 2
    assert re.search(r"graysort: \[Errno \d+\] .*f.json", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/below", Path("/proc")):
        assert run(folder, "--bytes", "100k") == 2
        error = capsys.readouterr().err
        assert f"--data-root: {folder} must be a folder that can be written to, got: " in error


@pytest.mark.parametrize(
    ("arguments", "times"), [([], 3), (["--peers"], 4), (["--peers", "--keep"], 5)], ids=str
)
def test_disk_without_room_is_refused_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    times: int,
) -> None:
    free = SimpleNamespace(free=times * 100_000 - 1)
    monkeypatch.setattr(sizes.shutil, "disk_usage", lambda _: free)
    assert run(tmp_path, "--bytes", "100k", *arguments) == 2
    message = f"must have {times * 100} kB free ({times} x 100 kB: input, runs, output"
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def start(folder: Path, *arguments: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.graysort", "--data-root", str(folder)]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def test_disk_that_gets_full_leaves_nothing(tmp_path: Path) -> None:
    """Files may not grow over 150 kB: neither worker can write all of the input."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    process = start(tmp_path, "--bytes", "300k", preexec_fn=limit)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "File too large (writing at byte 150000)" in error
    assert "input.dat" in error
    assert "Traceback" not in output + error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("awaited", "number"),
    [
        ("input.dat", signal.SIGINT),
        ("runs/run-*", signal.SIGINT),
        (".sorted.dat.unfinished", signal.SIGTERM),
    ],
)
def test_interrupt_leaves_nothing(tmp_path: Path, awaited: str, number: int) -> None:
    """As from a terminal, which sends Ctrl-C to all of its processes."""
    process = start(tmp_path, "--bytes", "100M", "--rounds", "50", start_new_session=True)
    try:
        while not list(tmp_path.glob(f"graysort-*/{awaited}")):
            assert process.poll() is None
            time.sleep(0.002)
        os.killpg(process.pid, number)
        output, error = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert error == "graysort: interrupted; its files are removed\n"
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []


def test_benchmarks_hand_the_command_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        all_benchmarks.main(["graysort", "--help"])
    assert ended.value.code == 0
    assert "python -m benchmarks graysort --bytes 1G" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100", 100), ("1k", 1000), ("1KB", 1000), ("2KiB", 2048), ("1.5M", 1_500_000),
        ("3 GB", 3 * 10**9), ("2gib", 2**31), ("1T", 10**12), ("0.1G", 10**8), ("1Ti", 2**40),
        ("2.01M", 2_010_000),
    ],
)  # fmt: skip
def test_sizes_as_people_write_them(text: str, expected: int) -> None:
    assert sizes.parse_bytes("--bytes", text) == expected


@pytest.mark.parametrize(
    ("num_bytes", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1234, "1.23 kB"), (999_600, "1 MB"),
     (110e12, "110 TB"), (5e15, "5e+03 TB")],
)  # fmt: skip
def test_sizes_for_people(num_bytes: float, expected: str) -> None:
    assert sizes.in_units(num_bytes) == expected


def test_relation_to_the_published_run() -> None:
    """By hand: 121,496 GB; 9600 cores times 1814 s; 50 x 25 GB/s; 25 x 100 GB/s."""
    relation = model.relate(2.0)
    assert relation.published_core_s_per_gb == pytest.approx(143.3, abs=0.1)
    assert relation.cpu_bound_s == pytest.approx(25.3, abs=0.1)
    assert relation.client_bound_s == pytest.approx(194.4, abs=0.1)
    assert relation.storage_bound_s == pytest.approx(97.2, abs=0.1)
    assert relation.bound_s == relation.client_bound_s
    assert model.relate(100.0).bound_s == pytest.approx(1265.6, abs=0.1)
