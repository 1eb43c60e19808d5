"""The page's text, without a browser."""

import re
from pathlib import Path

import pytest

from benchmarks.trace.analysis import analyse
from benchmarks.trace.page import page, save_page, time_text
from tests.trace import made_traces

TIMES = {
    0.0: "0",
    0.0004: "0.4 ns",
    0.9996: "999.6 ns",
    1.0: "1 us",
    12.345678: "12.35 us",
    999.96: "1000 us",
    1000.0: "1 ms",
    2_345_678.0: "2.346 s",
    123_456_789.0: "123.5 s",
}


@pytest.mark.parametrize(("time_us", "text"), TIMES.items())
def test_time_text(time_us: float, text: str) -> None:
    assert time_text(time_us) == text


def test_no_rank_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="page: analyses must hold at least one rank, got none"):
        page([], "title")


def test_page_is_saved_whole_in_a_new_folder(tmp_path: Path) -> None:
    training = analyse(made_traces.training_step())
    file = tmp_path / "new" / "page.html"
    save_page(file, [training], "a title")
    assert file.read_text(encoding="utf-8") == page([training], "a title")
    assert [entry.name for entry in file.parent.iterdir()] == ["page.html"]


def test_nothing_in_the_page_points_outside() -> None:
    text = page([analyse(made_traces.training_step())], "a title")
    assert re.findall(r"(?:src|href|action)\s*=\s*[\"']([^\"']*)", text) == ["data:,"]
    assert not re.search(r"https?:|//\w+\.\w|@import|url\(|\beval\b|new Function|innerHTML", text)
    assert "default-src 'none'" in text
    assert "unsafe" not in text


def test_half_a_surrogate_pair_can_be_saved(tmp_path: Path) -> None:
    sketch = made_traces.Sketch(work=[(0.0, 1.0, "half \ud800", 0, -1, 0)])
    save_page(tmp_path / "page.html", [analyse(sketch.trace("title \udfff"))])
    assert "title ?" in (tmp_path / "page.html").read_text(encoding="utf-8")
