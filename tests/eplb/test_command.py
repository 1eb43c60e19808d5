"""`python -m eplb`: what it prints and writes, and how it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eplb import __main__ as command
from eplb import report
from eplb.__main__ import main
from eplb.baseline import contiguous
from eplb.files import read_plan, write_loads
from eplb.plan import EMPTY, Plan, even_shares
from eplb.replay import Replay
from eplb.topology import Topology

FAST = ["--budget-ms", "1"]


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def loads(tmp_path: Path) -> str:
    """20 iterations of 3 layers with 16 experts that drift."""
    rng = np.random.default_rng(0)
    drift = np.cumsum(rng.normal(0, 0.2, (20, 3, 16)), axis=0)
    path = tmp_path / "loads.npy"
    write_loads(path, np.exp(drift))
    return str(path)


def row(output: str, name: str) -> list[str]:
    """The cells of the row of a table that begins with `name`."""
    (line,) = (line for line in output.splitlines() if line.startswith(f"{name} "))
    return line[len(name) :].split()


def test_a_plan_is_shown(loads: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([loads, "--gpus", "4", *FAST]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[0] == "3 layers of 16 experts on 4 GPUs in 1 node, 20 slots, global"
    columns = row(captured.out, "max/mean of")
    assert columns[:5] == ["in", "order", "greedy", "plan", "bound"] or "weighted" in columns
    for name in ("layer 0", "layer 1", "layer 2", "mean", "worst"):
        cells = row(captured.out, name)
        in_order, _, plan = map(float, cells[:3])
        assert in_order >= plan >= 1
    for gpu in range(4):
        before, bar, after, _ = row(captured.out, f"GPU {gpu:>4}")
        assert float(before) > 0
        assert float(after) > 0
        assert set(bar) <= set("█▏▎▍▌▋▊▉")
    assert max(map(len, lines)) <= 80


def test_it_runs_as_a_command_and_writes_files(loads: str, tmp_path: Path) -> None:
    plan, plot = tmp_path / "plan.json", tmp_path / "plan.png"
    words = [loads, "--gpus=4", "--nodes=2", "--groups=4", f"--out={plan}", f"--plot={plot}"]
    done = subprocess.run(
        [sys.executable, "-m", "eplb", *words, *FAST],
        capture_output=True, text=True, timeout=120, check=True, encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines()[-2:] == [f"Wrote {plan}", f"Wrote {plot}"]
    assert "2 nodes, 20 slots, hierarchical" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert read_plan(plan).topology == Topology.regular(4, 20, 2, 4)
    assert len(list(tmp_path.iterdir())) == 3


def test_output_that_cannot_show_blocks(loads: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eplb", loads, "--gpus=4", *FAST],
        capture_output=True, timeout=120, check=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert b"GPU    0" in done.stdout
    assert b"##" in done.stdout


def test_a_previous_plan_limits_the_moves(
    loads: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = str(tmp_path / "plan.json")
    words = [loads, "--gpus", "4", "--replicas", "24", *FAST]
    assert main([*words, "--statistic", "p90", "--out", plan]) == 0
    before = read_plan(plan)
    limits = ["--previous", plan, "--max-moves", "1", "--out", plan]
    assert main([*words, *limits, "--statistic", "ema"]) == 0
    after = read_plan(plan)
    assert after.num_moved.max() <= 1
    capsys.readouterr()
    assert main([*words, "--previous", plan, "--min-gain", "0.9", "--out", plan]) == 0
    np.testing.assert_array_equal(np.sort(read_plan(plan).slots), np.sort(after.slots))
    assert [row(capsys.readouterr().out, "worst")[-1]] == ["0"]
    assert before.topology == after.topology


def test_failed_gpus_hold_nothing(
    loads: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = str(tmp_path / "plan.json")
    assert main([loads, "--gpus=4", "--replicas=24", "--failed=1", "--out", plan, *FAST]) == 0
    assert read_plan(plan).topology.slots == (6, 0, 6, 6)
    output = capsys.readouterr().out
    assert "on 3 GPUs in 1 node, 1 failed, 18 slots" in output
    assert "GPU    1" not in output
    assert "greedy" not in output


def test_several_windows_are_planned_for(loads: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([loads, "--gpus", "4", "--statistic", "windows", *FAST]) == 0
    assert "global, worst of 4 windows" in capsys.readouterr().out


def test_a_replay_is_a_table(loads: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--replay", "--replicas=16,24", "--windows=2,10", "--intervals=5,50", *FAST]
    assert main([loads, "--gpus", "4", *words]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[0].startswith("20 iterations of 3 layers with 16 experts on 4 GPUs; plans for the")
    cells = [line.split() for line in lines[3:]]
    assert [line[:3] for line in cells] == [
        ["16", "-", "never"],
        *([slots, window, interval] for slots in ("16", "24") for window in ("2", "10")
          for interval in ("5", "50")),
    ]  # fmt: skip
    never, often = cells[0], cells[5]
    assert float(often[3]) < float(never[3])
    assert [line[-3:] for line in cells if line[2] == "50"] == [["0", "0.0", "-"]] * 4


def test_limits_hold_from_the_second_plan_of_a_replay(
    loads: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--replay", "--windows", "3", "--intervals", "4", "--max-moves"]
    moved = []
    for limit in ("0", "1", "16"):
        assert main([loads, "--gpus", "4", *words, limit, *FAST]) == 0
        moved.append(int(capsys.readouterr().out.split()[-3]))
    assert moved[0] == 0 < moved[1] <= 3 * 3  # three more plans, three layers
    assert moved[1] < moved[2]


def test_progress_is_shown_on_a_terminal_and_wiped(
    loads: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main([loads, "--gpus", "4", "--replay", "--intervals", "10", *FAST]) == 0
    shown = capsys.readouterr().err.split("\r\033[K")
    assert f"[{'#' * 15}{'.' * 15}] 10 of 20 iterations" in shown
    assert shown[-1] == ""
    assert main([loads, "--gpus", "4", *FAST]) == 0
    assert "planning 3 layers, at most 1 ms each" in capsys.readouterr().err


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no GPU": (["--gpus", "0"], "--gpus must be at least 1, got 0"),
    "nodes": (["--gpus", "3", "--nodes", "2"], "num_gpus must be a multiple of num_nodes"),
    "too few slots": (["--gpus", "4", "--replicas", "8"], "a slot for each of the 16 experts"),
    "failed": (["--gpus", "4", "--failed", "7"], "failed must be GPUs from 0 to 3, got 7"),
    "several": (["--gpus", "4", "--replicas", "16,20"], "--replicas must be one number, several"),
    "replay": (["--gpus", "4", "--replay", "--out", "x"], "--replay makes many plans: leave out"),
    "short": (["--gpus", "4", "--replay", "--intervals", "20,30"], "got 20 in "),
    "interval": (["--gpus", "4", "--replay", "--intervals", "0"], "interval must be at least 1"),
    "no folder": (["--gpus", "4", "--out", "none/plan.json"], "a file in an existing folder"),
    "a folder": (["--gpus", "4", "--plot", "."], "output must be a file in an existing folder"),
    "no plan": (["--gpus", "4", "--previous", "none.json"], "none.json: No such file"),
    "picture": (["--gpus", "4", "--plot", "plan.txt"], "must end in .png, .svg or .pdf"),
    "moves": (["--gpus", "4", "--max-moves", "3"], "max_moves needs previous"),
    "budget": (["--gpus", "4", "--budget-ms", "nan"], "time_budget_ms must be finite"),
}


@pytest.mark.parametrize(("words", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    loads: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([loads, *FAST, *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("python -m eplb: error: ")
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["loads.npy"]


@pytest.mark.parametrize("text", ["", "[[1,2],[3]]", "{}", "[[[]]]", "[[NaN]]"])
def test_files_without_loads(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "loads.json"
    path.write_text(text)
    assert main([str(path), "--gpus", "2"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line


def test_loads_without_a_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_loads(tmp_path / "loads.npy", np.ones((0, 4)))
    assert main([str(tmp_path / "loads.npy"), "--gpus", "2"]) == 2
    assert "must have a layer, got none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--gpus", "many"], [], ["--gpus", "2", "--failed", "1;2"], ["--policy", "best"]]
)
def test_words_that_are_no_arguments(
    words: list[str], loads: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([loads, *words])
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "python -m eplb loads.npy --gpus 32" in capsys.readouterr().out


def test_an_interruption_ends_with_130(
    loads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "rebalance", interrupted)
    assert main([loads, "--gpus", "4", "--out", str(tmp_path / "plan.json")]) == 130
    assert capsys.readouterr().err == "python -m eplb: interrupted\n"
    assert not (tmp_path / "plan.json").exists()


def test_without_matplotlib_the_command_says_so(
    loads: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert main([loads, "--gpus", "4", "--plot", "plan.png"]) == 2
    assert "--plot needs matplotlib (pip install matplotlib)" in capsys.readouterr().err


def plan_of(slots: Any, loads: Any, topology: Topology) -> Plan:
    slots, loads = np.array(slots), np.array(loads, dtype=np.float64)
    ones, shares = np.ones(len(slots)), even_shares(slots, loads.shape[2])
    return Plan(topology, "global", loads, slots, shares, ones, np.zeros(len(slots), np.int64))


def test_a_comparison_is_that_of_hand_made_numbers() -> None:
    # Layer 1 has its worst case in the second window, where the loads are small: 9 and 1.
    topology = Topology((2, 2), (0, 0))
    loads = [[[4.0, 2.0], [100.0, 100.0]], [[2.0, 2.0], [9.0, 1.0]]]
    plan = plan_of([[0, 1, 0, 1], [0, EMPTY, 1, EMPTY]], loads, topology)
    comparison = report.compare(plan)
    np.testing.assert_allclose(comparison.columns["in order"], [4 / 3, 1.8])
    np.testing.assert_allclose(comparison.columns["plan"], [1, 1.8])
    np.testing.assert_allclose(comparison.columns["greedy"], [1, 1])
    assert comparison.worst_layer == 1
    assert comparison.worst_window(1) == 1
    assert report.bars(comparison, 1, 80, ascii_only=True).splitlines() == [
        "         in order                          plan",
        f"GPU    0  1.80 {'#' * 27}  1.80 {'#' * 27}",
        f"GPU    1  0.20 {'#' * 3:<27}  0.20 {'#' * 3}",
    ]


def test_bars_of_many_gpus_leave_the_middle_out() -> None:
    loads = np.arange(40.0)[None, None] + 1
    plan = plan_of([list(range(40))], loads, Topology((1,) * 40, (0,) * 40))
    lines = report.bars(report.compare(plan), 0, 100).splitlines()
    assert len(lines) == 34
    assert lines[17].strip() == "... 8 GPUs between these ..."
    shown = [int(line.split()[1]) for line in lines[1:] if line.startswith("GPU")]
    assert shown == [*range(39, 23, -1), *range(15, -1, -1)]


def test_layers_without_load_are_even() -> None:
    plan = plan_of([[0, 1], [0, 1]], np.zeros((1, 2, 2)), Topology((1, 1), (0, 0)))
    comparison = report.compare(plan)
    assert comparison.columns["in order"].tolist() == [1, 1]
    assert "0.00" in report.bars(comparison, 1, 80)


def test_a_replay_table_counts_what_moved_after_the_first_plan() -> None:
    one = Replay(
        Topology((2, 2), (0, 0)), 3, 1, 10**9, np.array([2.0, 1.5, 1.25]), np.array([100, 4, 3]),
        np.array([0.5, 0.25, 0.75]),
    )  # fmt: skip
    text = report.replay_table(one, [one])
    assert text.splitlines()[-1].split() == ["4", "3", "1", "1.375", "1.498", "7", "7.0", "500"]


def test_a_file_of_loads_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "loads.json"
    path.write_text(json.dumps([[3, 1, 1, 1]]))
    assert main([str(path), "--gpus", "2", "--replicas", "4"]) == 0
    output = capsys.readouterr().out
    assert row(output, "layer 0")[0] == "1.333"
    assert contiguous(Topology.regular(2, 4), 1, 4).tolist() == [[0, 1, 2, 3]]
