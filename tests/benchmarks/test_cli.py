"""The command line: what it prints, what it refuses, and its exit codes."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import __main__ as cli
from tests.benchmarks.made_up import PEAKS, double_case

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def made_up_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {"double": double_case(), "other": double_case(name="other", peers={})}
    monkeypatch.setattr(cli, "load_cases", lambda: cases)
    monkeypatch.setattr(cli, "peaks_of", lambda _: PEAKS)


def _replace_ours(monkeypatch: pytest.MonkeyPatch, ours: Any) -> None:
    monkeypatch.setattr(cli, "load_cases", lambda: {"double": double_case(ours=ours)})


def test_list_names_cases_and_peers(capsys: Capture) -> None:
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert "double            x + x" in out
    assert "peer adding" in out
    assert "runs here" in out


def test_run_prints_tables_and_writes_what_was_asked(tmp_path: Path, capsys: Capture) -> None:
    files = {name: tmp_path / f"out.{name}" for name in ("json", "png")}
    command = ["run", "all", "--shapes", "tiny", "--device", "cpu", "--peer", "adding"]
    assert cli.main([*command, "--json", str(files["json"]), "--plot", str(files["png"])]) == 0
    out = capsys.readouterr().out
    assert "(measured)" in out
    assert out.index("double") < out.index("other")
    assert "x adding" in out
    written = json.loads(files["json"].read_text())
    assert [row["case"] for row in written["rows"]] == ["double"] * 2 + ["other"] * 2
    assert written["seed"] == 0
    environment = written["environment"]
    assert environment["torch"] == torch.__version__
    assert {"commit", "device", "driver", "date", "cuda"} <= environment.keys()
    assert files["png"].stat().st_size > 1000


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["run", "nope"], "run: case must be one of double, other or all, got 'nope'"),
        (
            ["run", "double", "--peer", "nope"],
            "run: peer must be one of adding, broken, gpu-only, tripling, got 'nope'",
        ),
        (["run", "other", "--peer", "x"], "run: peer must be left out, these cases have none, got"),
        (
            ["run", "double", "--json", "no/such/folder/f.json"],
            "output must be a file in an existing folder, got no/such/folder/f.json",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    command: list[str], sentence: str, capsys: Capture
) -> None:
    assert cli.main(command) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"benchmarks: {sentence}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    "command", [["run", "double", "--device", "cuda"], ["gpu_report"]], ids=["run", "gpu_report"]
)
def test_without_a_gpu_one_sentence_and_exit_code_2(
    command: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"benchmarks: {command[0]}: ")
    assert "torch finds no" in error
    assert error.count("\n") == 1


def test_wrong_result_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    _replace_ours(monkeypatch, lambda inputs: inputs["x"] * 2.1)
    assert cli.main(["run", "double", "--shapes", "tiny", "--device", "cpu"]) == 1
    assert "rows=3: wrong: error 5.0e-02 is above" in capsys.readouterr().out


def test_interrupt_prints_what_is_finished_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    def ours(inputs: dict[str, Any]) -> Any:
        if len(inputs["x"]) == 3:
            raise KeyboardInterrupt
        return inputs["x"] * 2

    _replace_ours(monkeypatch, ours)
    out = tmp_path / "out.json"
    command = ["run", "double", "--shapes", "tiny", "--device", "cpu", "--json", str(out)]
    assert cli.main(command) == 130
    captured = capsys.readouterr()
    assert "rows=1" in captured.out
    assert captured.err == "benchmarks: interrupted\n"
    assert not list(tmp_path.iterdir())


def test_end_to_end_gets_all_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def fake_main(argv: list[str]) -> int:
        seen.append(argv)
        return 7

    module = SimpleNamespace(main=fake_main)
    monkeypatch.setitem(sys.modules, "benchmarks.end_to_end.__main__", module)
    assert cli.main(["end_to_end", "--stages", "serve", "--help"]) == 7
    assert seen == [["--stages", "serve", "--help"]]


@pytest.mark.parametrize("command", [[], ["list"], ["run"], ["gpu_report"]], ids=str)
def test_help_has_examples(command: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    assert "python -m benchmarks" in capsys.readouterr().out.split("example", 1)[1]
