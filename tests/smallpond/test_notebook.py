"""A session in the kernel of a real notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import smallpond

nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
nbformat = pytest.importorskip("nbformat", reason="needs nbclient")
pytest.importorskip("ipykernel", reason="needs ipykernel")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs cells in one kernel; gives the outputs of each."""
    monkeypatch.setenv("PYTHONPATH", str(Path(smallpond.__file__).parents[1]))
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")

    def run(*cells: str) -> list[list[Any]]:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        client = nbclient.NotebookClient(
            notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        )
        client.execute()
        return [cell.outputs for cell in notebook.cells]

    return run


def test_a_notebook_stays_quiet(kernel: Any, tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    # Longer than what shows bars in a terminal.
    slow = "lambda row: (time.sleep(0.8), {'item': row['item'] + 1})[1]"
    made, planned, ran, shown, printed, ended = kernel(
        f"import time, smallpond\nsp = smallpond.init(data_root={root!r}, cpus=2)",
        f"df = sp.from_items([1, 2]).map({slow})\ndf",
        "df.compute()\ndf.take_all()",
        "df",
        "df.show()",
        "sp.shutdown()",
    )
    assert (made, ended) == ([], [])
    assert "not computed" in _only(planned, "execute_result").data["text/html"]
    assert _only(ran, "execute_result").data["text/plain"] == "[{'item': 2}, {'item': 3}]"
    assert "<td>2</td></tr><tr><td>3</td>" in _only(shown, "execute_result").data["text/html"]
    text = _only(printed, "stream")
    assert (text.name, text.text.count("\n")) == ("stdout", 7)
    assert not {"\x1b", "\r"} & set(text.text)


def _only(outputs: list[Any], kind: str) -> Any:
    """The only thing that came of a cell: no bars, no lines of a log."""
    [output] = outputs
    assert output.output_type == kind
    return output


# ---- without a kernel


def test_a_preview_computes_nothing(sp: smallpond.Session) -> None:
    ran: list[Any] = []
    sp.on_event(ran.append)
    source = sp.from_items([{"n": n, "<b>": f"<i>{n}&" if n else None} for n in range(30)])
    shown = source._repr_html_()
    assert "<th>n<br><small>int64</small></th><th>&lt;b&gt;<br>" in shown
    assert "<tr><td>0</td><td>NULL</td></tr><tr><td>1</td><td>&lt;i&gt;1&amp;</td></tr>" in shown
    assert shown.count("<tr>") == 11
    kept = source.filter("n < 25").repartition(4, by_rows=True)
    assert "<table>" not in kept._repr_html_()
    assert "filter: n &lt; 25" in kept._repr_html_()
    assert ran == []
    kept.compute()
    del ran[:]
    assert kept._repr_html_().count("<tr>") == 11
    assert "<td>9</td><td>&lt;i&gt;9&amp;</td></tr></tbody>" in kept._repr_html_()
    assert ran == []


def test_a_preview_of_no_rows(sp: smallpond.Session) -> None:
    none = sp.from_items([1]).filter("item > 1")
    none.compute()
    assert "<th>item<br><small>int64</small></th></tr></thead><tbody></tbody>" in none._repr_html_()
