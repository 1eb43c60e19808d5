"""`python -m dualpipe`: what it prints and writes, and how it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dualpipe import report
from dualpipe.__main__ import main
from dualpipe.actions import to_csv
from dualpipe.draw import to_svg, to_text
from dualpipe.schedules import SCHEDULES, dualpipe, dualpipev
from dualpipe.simulate import Times, compare, simulate
from dualpipe.trace import to_chrome_trace

SIZES = ["--stages", "8", "--microbatches", "20"]
EQUAL = {"forward": 1, "input_grad": 1, "weight_grad": 1}


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def times_file(tmp_path: Path, content: object) -> str:
    path = tmp_path / "times.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_golden_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SIZES) == 0
    golden = Path(__file__).parent / "golden" / "command_8_20.txt"
    assert capsys.readouterr().out.splitlines() == golden.read_text().splitlines()


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_can_be_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SIZES, "--schedule", name]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"{name}: 8 ranks, ")
    assert to_text(simulate(SCHEDULES[name](8, 20), Times()), 80) in output
    assert max(map(len, output.splitlines())) <= 80


def test_it_runs_as_a_command_and_writes_files(tmp_path: Path) -> None:
    outputs = [f"--{kind}={tmp_path / kind}" for kind in ("svg", "trace", "csv")]
    command = [sys.executable, "-m", "dualpipe", *SIZES, "--schedule=dualpipev", *outputs]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
    lines = [f"Wrote {tmp_path / kind}" for kind in ("svg", "trace", "csv")]
    assert done.stdout.splitlines()[-3:] == lines
    halves = Times(0.5, 0.5, 0.5)
    timeline = simulate(dualpipev(8, 20), halves)
    assert (tmp_path / "svg").read_text() == to_svg(timeline)
    assert (tmp_path / "trace").read_text() == to_chrome_trace(timeline)
    assert (tmp_path / "csv").read_text() == to_csv(timeline.schedule)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["csv", "svg", "trace"]


def test_times_of_every_half_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forward = [1.0] * 15 + [1.5]
    content = EQUAL | {"forward": forward, "overlap_factor": 0.75, "communication": 0.125}
    assert main([*SIZES, "--times", times_file(tmp_path, content)]) == 0
    merged = Times((2.0,) * 7 + (2.5,), 2, 2, 0.75, 0.125)
    makespan = simulate(dualpipe(8, 20), merged).makespan
    output = capsys.readouterr().out
    assert f"makespan {makespan:.4g}," in output
    assert "is for equal stages only" in output
    assert "with every parameter on two devices" in output


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ("7 20", "dualpipe: --stages must be an even number, at least 2, got 7 (dualpipev, 1f1b,"),
        ("0 20", "dualpipe: --stages must be an even number, at least 2, got 0"),
        ("-2 20", "dualpipe: --stages must be an even number, at least 2, got -2"),
        ("8 0", "dualpipe: --microbatches must be an even number, at least 16, got 0"),
        ("8 14", "--microbatches must be an even number, at least 16, got 14 (1f1b, zb1p can do"),
        ("8 17", "--microbatches must be an even number, at least 16, got 17 (dualpipev, 1f1b,"),
    ],
)
def test_impossible_sizes(sizes: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    stages, microbatches = sizes.split()
    assert main(["--stages", stages, "--microbatches", microbatches]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert said.err.startswith("python -m dualpipe: error: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must hold JSON: Expecting value"),
        ("{'forward': 1}", "must hold JSON: "),
        ([1, 2], "must hold an object, got list"),
        ({"backward": 1}, "must only have forward, input_grad, weight_grad, overlap_factor, comm"),
        ({"forward": 1}, "must have forward, input_grad, weight_grad, got no input_grad"),
        (EQUAL | {"forward": -1}, "forward must be positive and finite, got -1"),
        (EQUAL | {"weight_grad": 0}, "weight_grad must be positive and finite, got 0"),
        (EQUAL | {"input_grad": float("nan")}, "input_grad must be positive and finite, got nan"),
        (EQUAL | {"forward": "1"}, "forward must hold numbers, got '1'"),
        (EQUAL | {"forward": [1, None]}, "forward must hold numbers, got None"),
        (EQUAL | {"forward": [1, 2, 3]}, "forward must have one entry per stage, 16, got 3"),
        (EQUAL | {"forward": []}, "forward must have one entry per stage, 16, got 0"),
        (EQUAL | {"forward": 10**400}, "too large"),
        (EQUAL | {"overlap_factor": [1] * 16}, "overlap_factor must hold numbers, got (1, 1,"),
        (EQUAL | {"communication": -0.5}, "communication must be 0 or more and finite, got -0.5"),
    ],
)
def test_wrong_times(
    content: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = times_file(tmp_path, content)
    assert main([*SIZES, "--times", path, "--svg", str(tmp_path / "out.svg")]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert path in said.err
    assert said.err.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["times.json"]


def test_a_missing_file_of_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SIZES, "--times", str(tmp_path / "none.json")]) == 2
    assert f"cannot read --times {tmp_path}/none.json: No such file" in capsys.readouterr().err


def test_files_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SIZES, "--svg", str(tmp_path / "none" / "out.svg")]) == 2
    assert "out.svg: No such file or directory" in capsys.readouterr().err
    assert main([*SIZES, "--svg", str(tmp_path)]) == 2
    assert f"cannot write {tmp_path}: Is a directory" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}*"))


def test_two_copies_of_a_stage_do_not_fit_the_csv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--svg", str(tmp_path / "out.svg"), "--csv", str(tmp_path / "out.csv")]
    assert main([*SIZES, *files]) == 2
    assert "must hold every stage on one rank, got dualpipe" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())  # nor is the picture left alone


@pytest.mark.parametrize(
    "arguments", [[], ["--stages", "8"], [*SIZES, "--schedule", "gpipe"], ["--stages", "x"]]
)
def test_wrong_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    assert "python -m dualpipe --stages 8 --microbatches 20" in capsys.readouterr().out


# The sentences of the report.


def test_the_best_with_one_copy_is_named_beside_one_with_two() -> None:
    single = report.best(compare(8, 32, Times()))
    assert single == "Fastest for these times: zbv."
    double = report.best(compare(8, 32, Times(overlap_factor=0.8)))
    assert double == (
        "Fastest for these times: dualpipe, with every parameter on two devices; "
        "with one copy: dualpipev, 0.5% slower."
    )


def test_break_even_sentences() -> None:
    text = report.break_even_text(8, 32, Times(overlap_factor=0.75))
    assert text.startswith(
        "dualpipev is faster than zbv where an overlapped pair takes less than 0.9"
    )
    assert text.endswith("in these times it takes 0.75.")
    assert "even if overlapping gains nothing" in report.break_even_text(1, 4, Times())
    assert report.break_even_text(8, 9, Times()) == ""


@pytest.mark.parametrize(
    ("times", "remark"),
    [
        (Times(), ": 6; simulated: 6. The formula is exact, since"),
        (Times((1.0,) * 8), ": 6; simulated: 6. The formula is exact, since"),
        (Times(1, 1, 1.5), ": 4.5; simulated: 6. The formula is exact only if"),
        (Times(communication=0.5), "The formula is exact only if"),
        (Times((1.0,) * 7 + (2.0,)), "is for equal stages only."),
    ],
)
def test_published_bubble_beside_the_simulated(times: Times, remark: str) -> None:
    timeline = simulate(dualpipe(8, 20), times)
    assert remark in report.published_bubble_text(timeline, times)


def test_schedules_without_a_published_bubble() -> None:
    timeline = simulate(SCHEDULES["zbv"](4, 8), Times())
    assert report.published_bubble_text(timeline, Times()) == ""
