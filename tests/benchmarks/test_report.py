"""The table, the JSON and the picture of the same rows."""

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.harness import Row
from benchmarks.plot import save_plot
from benchmarks.report import console, document, run_and_show, table, write_json
from tests.benchmarks.made_up import CPU, PEAKS, double_case

TIMED = Row(
    case="double",
    shape="rows=8",
    status="ok",
    error=1e-4,
    tolerance=1e-3,
    p20_us=1.4,
    p50_us=2.0,
    p80_us=2345.6,
    tflops=0.5,
    gbytes_per_s=50.0,
    roofline=0.25,
    ratios={"adding": 2.0, "slow": 0.16},
    peers={"adding": {"p50_us": 4.0}},
    method="by hand",
)
ENVIRONMENT = {"device": "a device", "torch": "9.9", "commit": "abc-dirty"}


def _text(renderable: object) -> str:
    out = io.StringIO()
    Console(file=out, width=160, highlight=False).print(renderable)
    return out.getvalue()


def test_table_shows_every_figure_of_a_row() -> None:
    second = dataclasses.replace(TIMED, shape="rows=9", ratios={"adding": 8.0})
    lines = _text(table("double", [TIMED, second])).splitlines()
    headings, first, other, mean = (line for line in lines[1:] if line.strip())
    for heading in ("shape", "p20 us", "TFLOP/s", "GB/s", "% roofline", "x adding", "x slow"):
        assert heading in headings
    assert " ".join(first.split()) == "rows=8 1.40 2.00 2,346 0.500 50.0 25% 2.00 0.16"
    assert other.split()[-2:] == ["8.00", "-"]
    assert mean.split() == ["geomean", "4.00", "0.16"]


def test_table_lists_what_was_not_timed_with_its_reason() -> None:
    wrong = Row(case="double", shape="rows=1", status="wrong", reason="error 1 is above 0.001")
    text = _text(table("double", [wrong, dataclasses.replace(TIMED, notes=("cold",))], 4))
    assert "rows=1: wrong: error 1 is above 0.001" in text
    assert "rows=8: cold" in text
    assert "4 shapes are too large for a CPU" in text
    assert "geomean" not in text


def test_table_of_a_case_without_timed_rows_is_its_reason() -> None:
    row = Row(case="double", shape="all", status="not available", reason="[no] package")
    assert _text(table("double", [row])).split("\n")[:2] == [
        "double",
        "  all: not available: [no] package",
    ]


def test_no_progress_bar_when_stdout_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Row] = []
    run_and_show([double_case()], rows, console(), "tiny", CPU, PEAKS, only_peer="adding")
    out = capsys.readouterr().out
    assert len(rows) == 2
    assert "\x1b" not in out
    assert "0:00" not in out
    assert out.splitlines()[0].strip() == "double"


def test_interrupted_case_shows_what_is_finished(capsys: pytest.CaptureFixture[str]) -> None:
    def ours(inputs: dict[str, Any]) -> Any:
        if len(inputs["x"]) == 3:
            raise KeyboardInterrupt
        return inputs["x"] * 2

    rows: list[Row] = []
    with pytest.raises(KeyboardInterrupt):
        run_and_show([double_case(ours=ours)], rows, console(), "tiny", CPU, PEAKS)
    assert [row.shape for row in rows] == ["rows=1"]
    assert "rows=1" in capsys.readouterr().out


def test_json_holds_the_rows_and_what_they_depend_on(tmp_path: Path) -> None:
    wrong = Row(case="double", shape="rows=1", status="wrong", error=math.inf)
    written = document([TIMED, wrong], ENVIRONMENT, PEAKS, 0, shapes="tiny")
    write_json(tmp_path / "deeper" / "out.json", written)
    read = json.loads((tmp_path / "deeper" / "out.json").read_text())
    assert read["environment"] == ENVIRONMENT
    assert read["peaks"]["source"] == "measured"
    assert (read["seed"], read["shapes"]) == (0, "tiny")
    assert read["geomeans"] == {"double": {"adding": pytest.approx(2), "slow": pytest.approx(0.16)}}
    first, second = read["rows"]
    assert first == {**dataclasses.asdict(TIMED), "notes": []}
    assert second["error"] == "inf"


@pytest.mark.parametrize("fails", ["open", "replace"])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_json_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, failure: BaseException
) -> None:
    path = tmp_path / "out.json"
    write_json(path, {"old": True})

    class HalfWritten(io.BytesIO):
        def write(self, _: object) -> int:
            raise failure

    def fail(*_: object) -> Any:
        raise failure

    with monkeypatch.context() as patch:
        if fails == "open":
            real = Path.open

            def half_written(unfinished: Path, mode: str) -> Any:
                real(unfinished, mode).close()
                return HalfWritten()

            patch.setattr(Path, "open", half_written)
        else:
            patch.setattr(Path, "replace", fail)
        with pytest.raises(type(failure)):
            write_json(path, {"new": True})
    assert json.loads(path.read_text()) == {"old": True}
    assert [each.name for each in tmp_path.iterdir()] == ["out.json"]


def test_plot_is_a_picture(tmp_path: Path) -> None:
    rows = [TIMED, dataclasses.replace(TIMED, case="alone", ratios={})]
    save_plot(tmp_path / "out.png", rows, ENVIRONMENT)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_plot_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plot: there must be a timed row, got none"):
        save_plot(tmp_path / "out.png", [], ENVIRONMENT)
    assert not list(tmp_path.iterdir())
