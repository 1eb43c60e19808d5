"""`python -m benchmarks trace`: what it prints and writes, what it refuses, its exit codes."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main as benchmarks_main
from benchmarks.trace import __main__ as cli
from tests.trace.chrome import ChromeTrace
from tests.trace.golden import FIGURES, GAPS, OPERATIONS, PHASES, UNKNOWN, save_golden

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]


@pytest.fixture(name="golden")
def fixture_golden(tmp_path: Path) -> Path:
    return save_golden(tmp_path / "golden.json.gz")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def table_rows(out: str, title: str) -> dict[str, list[str]]:
    """The cells of the table below a title, by the first one; cells are two blanks apart."""
    text = re.sub(r" +$", "", out, flags=re.MULTILINE)
    lines = text.partition(f"\n{title}")[2].partition("\n\n")[0].splitlines()[2:]
    cells = (re.split(r"  +", line.strip()) for line in lines)
    return {first: rest for first, *rest in cells}


def test_analyse_prints_the_golden_figures(golden: Path, capsys: Capture) -> None:
    assert benchmarks_main(["trace", "analyse", str(golden), "--top", "20"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    headline, bar, legend = out.splitlines()[:3]
    assert headline == "rank 3: 1000.0 us, 18 pieces of work, 132 SMs, overlap speed-up 1.25x"
    assert [bar.count(letter) for letter in "█▓▒=·"] == [43, 24, 15, 1, 13]
    assert legend.strip().split("   ") == [
        *("█ compute alone 45.0%", "▓ hidden 25.0%", "▒ exposed 15.0%"),
        *("= copy alone 1.0%", "· idle 14.0%"),
    ]
    figures = table_rows(out, "figures, us")
    for name in ("compute", "communication", "hidden", "exposed", "idle"):
        time = FIGURES[f"{name}_us"]
        assert figures[name][:2] == [f"{time:.1f}", f"{time / 10:.1f}%"]
    assert figures["communication"][2] == "payload 360.0, waiting 40.0, 20 SMs"
    phases = table_rows(out, "the phases with most work")
    for name, times in PHASES.items():
        assert [float(cell) for cell in phases[name]] == [1, 10.0, *times]
    operations = table_rows(out, "communication, by operation, us")
    for name, times in OPERATIONS.items():
        assert [float(cell) for cell in operations[name][1:5]] == list(times)
    assert table_rows(out, "streams, us")["stream 27"][-1] == "20"
    assert table_rows(out, "names that no rule knows")[UNKNOWN] == ["1", "30.0"]


def test_analyse_prints_gaps_longest_first(golden: Path, capsys: Capture) -> None:
    assert cli.main(["analyse", str(golden), "--top", "2"]) == 0
    gaps = table_rows(capsys.readouterr().out, "longest gaps without compute, us")
    assert gaps == {
        "830.0": ["100.0", "50.0", "50.0", "combine(F): combine", "attn(W): sinkhorn_step"],
        "400.0": ["80.0", "30.0", "50.0", "dispatch(F): dispatch", "mlp(F): fp8_gemm_kernel"],
    }


def test_analyse_writes_json(golden: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    assert cli.main(["analyse", str(golden), "--json", str(path)]) == 0
    document = json.loads(path.read_text())
    (rank,) = document["ranks"]
    assert rank["title"] == "rank 3"
    assert FIGURES.items() <= rank["figures"].items()
    assert rank["figures"]["overlap_speedup"] == 1.25
    assert document["across_ranks"]["hidden_us"] == {"min": 250.0, "mean": 250.0, "max": 250.0}
    assert len(rank["gaps"]) == len(GAPS)
    assert rank["gaps"][0]["communicator"]["phase"] == "combine(F)"
    assert rank["gaps"][0]["waiter"] == {
        "name": UNKNOWN,
        "stream": "stream 7",
        "phase": "attn(W)",
    }
    assert rank["gaps"][-1]["waiter"] is None


def test_rules_change_the_figures(golden: Path, tmp_path: Path, capsys: Capture) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('[{"match": "sinkhorn", "kind": "communication", "operation": "mix"}]')
    assert cli.main(["analyse", str(golden), "--rules", str(rules)]) == 0
    out = capsys.readouterr().out
    assert table_rows(out, "communication, by operation, us")["mix"][:2] == ["1", "30.0"]
    assert "names that no rule knows" not in out


def test_phase_pattern_folds_inner_phases(golden: Path, capsys: Capture) -> None:
    assert cli.main(["analyse", str(golden), "--phase", "^1F1B$"]) == 0
    out = capsys.readouterr().out
    phases = table_rows(out, "the phases with most work")
    assert [float(cell) for cell in phases["1F1B"]] == [1, 300, 700, 400, 40, 250, 150]


def test_several_ranks_are_laid_side_by_side(golden: Path, tmp_path: Path, capsys: Capture) -> None:
    other = ChromeTrace(rank=4)
    other.kernel("void cutlass::Kernel<1>(int)", 50_000.0, 1100.0)
    path = other.save(tmp_path / "rank4.json")
    assert cli.main(["analyse", str(golden), str(path)]) == 0
    out = capsys.readouterr().out
    ranks = table_rows(out, "2 ranks, us")
    assert ranks["rank 3"][:3] == ["1000.0", "700.0", "400.0"]
    assert ranks["rank 4"][:3] == ["1100.0", "1100.0", "0"]
    assert ranks["mean"][:3] == ["1050.0", "900.0", "200.0"]
    assert "all together, first begin to last end: 1100.0 us" in out
    assert "the slowest in detail: rank 4" in out
    assert "! no communication found" in out


def test_diff_lays_two_traces_side_by_side(golden: Path, tmp_path: Path, capsys: Capture) -> None:
    other = ChromeTrace()
    other.annotation("mlp(F)", 0.0, 9.0)
    other.annotation("new", 10.0, 9.0)
    other.kernel("void cutlass::Kernel<1>(int)", 100.0, 160.0, launched_us=5.0)
    other.kernel("void cutlass::Kernel<1>(int)", 260.0, 40.0, launched_us=15.0)
    path, report = other.save(tmp_path / "other.json"), tmp_path / "diff.json"
    assert cli.main(["diff", str(golden), str(path), "--top", "20", "--json", str(report)]) == 0
    out = capsys.readouterr().out
    span = table_rows(out, "figures, mean of the ranks, us")["span"]
    assert span == ["1000.0", "200.0", "-800.0", "0.20x", "100.0%", "100.0%"]
    phases = table_rows(out, "phases: when their work ran")
    assert phases["mlp(F)"] == ["80.0", "160.0", "+80.0", "2.00x", "8.0%", "80.0%"]
    assert "in A only, us: attn(F) 260.0, " in out
    assert "in B only, us: new 40.0\n" in out
    rows = json.loads(report.read_text())["differences"]
    (row,) = (row for row in rows if row["name"] == "mlp(F)")
    assert (row["difference_us"], row["ratio"], row["b_share"]) == (80.0, 2.0, 0.8)


def test_html_writes_a_page(golden: Path, tmp_path: Path, capsys: Capture) -> None:
    page = tmp_path / "page.html"
    assert cli.main(["html", str(golden), "--out", str(page)]) == 0
    assert capsys.readouterr().out == f"wrote {page}\n"
    assert "rank 3" in page.read_text()


def test_names_are_printed_as_they_are(tmp_path: Path, capsys: Capture) -> None:
    trace = ChromeTrace()
    trace.kernel("odd[bold]:smile:[/] [m, k]", 0.0, 5.0)
    path = trace.save(tmp_path / "[bold]:smile:.json")
    assert cli.main(["analyse", str(path)]) == 0
    assert "odd[bold]:smile:[/] [m, k]" in capsys.readouterr().out
    assert cli.main(["diff", str(path), str(path)]) == 0
    assert "[bold]:smile:.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["analyse", "{}/gone.json"], "gone.json"),
        (["analyse", "{golden}", "--rules", "{}/gone.json"], "must be readable, got No such file"),
        (["analyse", "{golden}", "--phase", "("], "--phase must be a regular expression, got '('"),
        (["analyse", "{golden}", "--phase", "nope"], "--phase must match a phase, got 'nope' (th"),
        (["analyse", "{golden}", "--top", "0"], "--top must be at least 1, got 0"),
        (["analyse", "{golden}", "--json", "{}/no/a.json"], "--json must be a file in an existi"),
        (["html", "{golden}", "--out", "{}"], "--out must be a file in an existing folder, got"),
        (["diff", "{golden}", "{}"], "benchmarks trace: "),
    ],
)
def test_mistakes_are_one_line(
    command: list[str], message: str, golden: Path, tmp_path: Path, capsys: Capture
) -> None:
    filled = [part.format(tmp_path, golden=golden) for part in command]
    assert cli.main(filled) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("benchmarks trace: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.parametrize("command", [["trace"], ["trace", "diff", "one.json"], ["trace", "nope"]])
def test_wrong_usage_exits_with_2(command: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        benchmarks_main(command)


@pytest.mark.parametrize("command", [[], ["analyse"], ["html"], ["diff"]])
def test_help_fits_and_has_examples(command: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([*command, "--help"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    wanted = {"": "trace html simulated.json", "analyse": "overlap speed-up:", "diff": "--phase"}
    assert wanted.get("".join(command), "--rules") in out


def test_interrupt_exits_with_130(
    golden: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "read_traces", interrupted)
    assert cli.main(["analyse", str(golden)]) == 130
    assert capsys.readouterr().err == "benchmarks trace: interrupted\n"


def test_a_reader_who_leaves_early_is_no_error(golden: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.trace", "analyse", str(golden)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0
