"""`python -m benchmarks end_to_end`: a small run, and everything that can go wrong with one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.end_to_end.__main__ import main
from benchmarks.trace.analysis import analyse
from benchmarks.trace.reader import read_traces
from dualpipe.__main__ import read_times
from dualpipe.actions import Kind, actions_of, parse_step
from eplb import read_plan

_COMMAND = [sys.executable, "-m", "benchmarks", "end_to_end"]
_DEADLINE_S = 90


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for number in range(60):
        lines = [f"def function_{number}_{line}():\n    return {line}\n" for line in range(100)]
        (folder / f"{number}.py").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def finished(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(folder, output) of a whole run of three steps."""
    out = tmp_path_factory.mktemp("run")
    result = _run("--input", str(text_folder), "--out", str(out), "--steps", "3")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return out, result.stdout


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A process of its own: ranks must be forked from one that has run no backward pass.
    return subprocess.run(
        [*_COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=_DEADLINE_S
    )


def test_a_whole_run_leaves_whole_files_and_a_table(finished: tuple[Path, str]) -> None:
    out, shown = finished
    for heading in ("data", "train", "balance", "serve", "trace", "What ran where"):
        assert heading in shown
    files = {path.name for path in out.iterdir()}
    json_files = {"train.json", "times.json", "plan.json", "serve.json"}
    assert files == {"text", "weights.npz", "pages", "profiles", "trace.html"} | json_files
    assert {path.name for path in (out / "profiles").iterdir()} == {
        f"rank{rank}.json.gz" for rank in range(8)
    }
    assert {path.suffix for path in (out / "pages").iterdir()} == {".page"}


def test_measured_times_go_into_the_simulator(finished: tuple[Path, str]) -> None:
    times = read_times(finished[0] / "times.json", num_half_stages=8)
    assert min(times.forward) > 0  # type: ignore[type-var]


def test_figures_fit_together(finished: tuple[Path, str]) -> None:
    train = json.loads((finished[0] / "train.json").read_text())
    assert len(train["losses"]) == 3
    assert train["losses"][0] == pytest.approx(5.545, abs=0.01)  # the head starts at zero: ln 256
    assert train["losses"][-1] < train["losses"][0]
    assert train["validation_loss"] < train["losses"][0]
    # Three quarters of three steps is two: the last step's 2048 tokens chose two experts each.
    assert [sum(layer) for layer in train["expert_load"]] == [2 * 2048] * 4
    serve = json.loads((finished[0] / "serve.json").read_text())
    assert (
        serve["num_checked"]
        == serve["num_decoded"]
        == sum(127 - n for n in (40, 64, 88, 56, 72, 48))
    )
    assert serve["num_pages"] == 8


def test_the_profiled_step_has_all_its_work(finished: tuple[Path, str]) -> None:
    for rank in range(8):
        (trace,) = read_traces(finished[0] / "profiles" / f"rank{rank}.json.gz")
        work = Counter(trace.names[name] for name in trace.phases.name.tolist())
        # Eight micro-batches pass each rank, forward and back.
        assert work["dispatch"] == work["combine"] == 8
        assert work["dispatch backward"] == work["combine backward"] == 8
        assert work["gradient sync"] == work["optimizer"] == 1
        steps = [parse_step(name.removeprefix("PP:")) for name in work if name.startswith("PP:")]
        kinds = Counter(action.kind for step in steps for action in actions_of(step))
        assert kinds[Kind.FORWARD] == kinds[Kind.BACKWARD] + kinds[Kind.INPUT_GRAD] == 8
        assert kinds[Kind.WEIGHT_GRAD] == kinds[Kind.INPUT_GRAD]
        operations = set(analyse(trace).operations)
        assert {"all_to_all", "all_reduce"} <= operations


def test_the_page_shows_measured_and_simulated_ranks(finished: tuple[Path, str]) -> None:
    shown = (finished[0] / "trace.html").read_text()
    for rank in range(8):
        assert f"rank {rank} (pipeline {rank // 2}, experts {rank % 2})" in shown
    for rank in range(4):
        assert f"simulated rank {rank}" in shown


def test_the_plan_is_for_the_measured_load(finished: tuple[Path, str]) -> None:
    plan = read_plan(finished[0] / "plan.json")
    load = json.loads((finished[0] / "train.json").read_text())["expert_load"]
    assert plan.loads[0].tolist() == load
    assert plan.slots.shape == (4, 10)
    assert plan.counts.sum(axis=1).tolist() == [10] * 4


def test_stages_stand_alone(finished: tuple[Path, str]) -> None:
    out, _ = finished
    before = json.loads((out / "serve.json").read_text())
    result = _run("--out", str(out), "--stages", "trace,serve")
    assert result.returncode == 0, result.stderr
    after = json.loads((out / "serve.json").read_text())
    assert after["texts"] == before["texts"]


def test_the_same_seed_gives_the_same_weights(
    finished: tuple[Path, str], text_folder: Path, tmp_path: Path
) -> None:
    result = _run(
        *("--input", str(text_folder), "--out", str(tmp_path), "--steps", "3"),
        *("--stages", "data,train"),
    )
    assert result.returncode == 0, result.stderr
    texts = [path.relative_to(tmp_path) for path in (tmp_path / "text").glob("*/*.parquet")]
    assert len(texts) == 2
    for name in (*texts, "weights.npz"):
        assert (tmp_path / name).read_bytes() == (finished[0] / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "/nowhere/at/all"], "/nowhere/at/all does not exist"),
        (
            ["--stages", "data,fly"],
            "must be some of data,train,balance,serve,trace, got 'data,fly'",
        ),
        (["--stages", ","], "must be some of data,train"),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--seed", "-1"], "seed must be within 0 and 2^32 - 1, got -1"),
        (["--stages", "train"], "text/train is not there, the stage data writes it"),
        (["--stages", "serve"], "text/train is not there, the stage data writes it"),
        (["--stages", "balance"], "train.json is not there, the stage train writes it"),
        (["--stages", "trace"], "rank0.json.gz is not there, the stage train writes it"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("end_to_end: --")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "examples:" in capsys.readouterr().out


def _children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def _training(
    finished: tuple[Path, str], out: Path
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A long training with all its ranks at work, and those ranks."""
    shutil.copytree(finished[0] / "text", out / "text")
    command = [*_COMMAND, "--out", str(out), "--stages", "train", "--steps", "1000"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            deadline = time.monotonic() + _DEADLINE_S
            while not _is_training(ranks := _children(process.pid)):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield process, ranks
        finally:
            process.kill()


def _is_training(ranks: list[int]) -> bool:
    # More processor time than the start takes.
    spent = [sum(map(int, Path(f"/proc/{pid}/stat").read_text().split()[13:15])) for pid in ranks]
    return len(ranks) == 8 and min(spent) > 1.5 * os.sysconf("SC_CLK_TCK")


def _is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("event", ["rank killed", "Ctrl-C"])
def test_an_early_end_is_told_and_leaves_nothing(
    finished: tuple[Path, str], tmp_path: Path, event: str
) -> None:
    with _training(finished, tmp_path) as (process, ranks):
        if event == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        else:
            os.kill(ranks[5], signal.SIGKILL)
        _, error = process.communicate(timeout=30)
    assert process.returncode == (130 if event == "Ctrl-C" else 2)
    expected = "interrupted" if event == "Ctrl-C" else "rank 5 of 8 was killed by signal 9 (SIGKILL"
    assert expected in error
    assert error.count("\n") == 1
    assert all(map(_is_gone, ranks))
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
