"""Web crawls, written by warcio and read through plans."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from smallpond.contrib.html_words import body_words
from smallpond.contrib.warc import ExtractHtmlBody, ImportWarcFiles
from smallpond.errors import PlanError, SmallpondError
from smallpond.logical.dataset import ArrowTableDataSet, FileSet
from smallpond.logical.node import Context, DataSetPartitionNode, DataSourceNode, RootNode
from tests.smallpond.logical.conftest import Run

pytest.importorskip("warcio", reason="warc (warcio is not installed)")
pytest.importorskip("lxml", reason="warc (lxml is not installed)")

Records = list[tuple[str, str, bytes]]


def warc(records: Records, *, gzipped: bool = False, headers: Any = ()) -> bytes:
    """A file of (type, URL, content)."""
    from warcio.statusandheaders import StatusAndHeaders  # noqa: PLC0415
    from warcio.warcwriter import WARCWriter  # noqa: PLC0415

    class Writer(WARCWriter):  # type: ignore[misc]
        """Leaves no temporary files to the garbage collector."""

        _create_temp_file = staticmethod(io.BytesIO)

    buffer = io.BytesIO()
    writer = Writer(buffer, gzip=gzipped)
    for i, (kind, url, content) in enumerate(records):
        status = StatusAndHeaders("200 OK", list(headers), protocol="HTTP/1.1")
        record = writer.create_warc_record(
            url, kind, io.BytesIO(content), http_headers=status if kind == "response" else None,
            warc_headers_dict={"WARC-Date": f"2026-01-02T03:04:{i:02}Z"},
        )  # fmt: skip
        writer.write_record(record)
    return buffer.getvalue()


def pages_of(host: str, count: int) -> Records:
    made: Records = [("warcinfo", f"{host}.warc", b"software: none\r\n")]
    for i in range(count):
        url = f"http://{host}:80{i}/page?n={i}"
        made += [
            ("request", url, b"GET / HTTP/1.1\r\n\r\n"),
            ("response", url, f"<body>page <b>{i}</b> of {host}</body>".encode() + b" " * 5000),
        ]
    return made


def zstd(data: bytes, pieces: int = 1) -> bytes:
    step = -(-len(data) // pieces)
    made = []
    for i in range(0, len(data), step):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as out:
            out.write(data[i : i + step])
        made.append(sink.getvalue().to_pybytes())
    return b"".join(made)


FORMS: dict[str, Callable[[Records], bytes]] = {
    "plain": warc,
    "gzip by record": lambda records: warc(records, gzipped=True),
    "gzip": lambda records: gzip.compress(warc(records)),
    "zstd": lambda records: zstd(warc(records)),
    "zstd in pieces": lambda records: zstd(warc(records), pieces=7),
}


@pytest.mark.parametrize("form", FORMS)
def test_pages_and_their_words(run: Run, ctx: Context, tmp_path: Path, form: str) -> None:
    counts = {"a.org": 3, "b.org": 0, "c.org": 5}
    for host, count in counts.items():
        (tmp_path / f"{host}.warc").write_bytes(FORMS[form](pages_of(host, count)))
    files = DataSourceNode(ctx, FileSet([str(tmp_path / "*.warc")]))
    parts = DataSetPartitionNode(ctx, (files,), 2)
    pages = ImportWarcFiles(ctx, (parts,), output_name="pages")
    plan = run(RootNode(ctx, [pages, ExtractHtmlBody(ctx, (pages,), output_name="words")]))
    expected = [
        {
            "url": f"http://{host}:80{i}/page?n={i}",
            "domain": f"{host}:80{i}",
            "date": f"2026-01-02T03:04:{2 + 2 * i:02}Z",
            "content": f"<body>page <b>{i}</b> of {host}</body>".encode() + b" " * 5000,
        }
        for host, count in counts.items()
        for i in range(count)
    ]
    found = plan.named_outputs["pages"]
    assert found.num_files == len(counts)
    assert sorted(found.to_arrow_table().to_pylist(), key=lambda row: row["url"]) == expected
    words = plan.named_outputs["words"].to_arrow_table()
    assert words.column_names == ExtractHtmlBody.schema.names
    by_url = {row["url"]: (row["date"], row["tokens"]) for row in words.to_pylist()}
    assert by_url == {
        row["url"]: (
            row["date"],
            ["page", str(row["url"])[-1], "of", *str(row["domain"]).split(":")[0].split(".")],
        )
        for row in expected
    }


def test_content_is_as_the_server_meant_it(run: Run, ctx: Context, tmp_path: Path) -> None:
    body = gzip.compress(b"<body>small</body>")
    chunked = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    headers = [("Content-Encoding", "gzip"), ("Transfer-Encoding", "chunked")]
    made = warc([("response", "http://e.org/", chunked)], headers=headers)
    (tmp_path / "a.warc").write_bytes(made)
    files = DataSourceNode(ctx, FileSet([str(tmp_path / "a.warc")]))
    [row] = run(ImportWarcFiles(ctx, (files,))).final_output.to_arrow_table().to_pylist()
    assert row["content"] == b"<body>small</body>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (warc(pages_of("e", 2))[:-2000], "it ends within a record"),
        (warc(pages_of("e", 2), gzipped=True)[:-30], "Truncated compressed stream"),
        (zstd(warc(pages_of("e", 2)))[:-30], "Truncated compressed stream"),
        (b"hello world\n" * 100, "Unknown archive format"),
        (b"hello world" * 100, "it is no WARC file"),
        (b"\x1f\x8bhello world\n" * 100, "incorrect header check|unknown compression"),
    ],
    ids=["plain", "gzip", "zstd", "text", "line", "no gzip"],
)
def test_damaged_files(
    run: Run, ctx: Context, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "bad.warc").write_bytes(content)
    files = DataSourceNode(ctx, FileSet([str(tmp_path / "bad.warc")]))
    with pytest.raises(SmallpondError, match=rf"(?s)ImportWarcFiles-1.*bad\.warc: .*({message})"):
        run(ImportWarcFiles(ctx, (files,)))


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (b"", []),
        (b"   \n", []),
        (b"plain text", ["plain", "text"]),
        (b"<!-- nothing -->", []),
        (b"\x89PNG\0\0\0\rIHDR", []),
        (b"<p>one<p>two<br>three<td>four", ["one", "two", "three", "four"]),
        (b"<body>w<b>or</b>d <a>link</a>s", ["word", "links"]),
        (b"<title>t</title><body><script>s()</script>a<style>b{}</style> b<!--c-->", ["a", "b"]),
        (b"<body>don't-stop: (a_b)\xe2\x80\x94c\xe3\x80\x82d &amp; e&nbsp;f",
         ["don", "t", "stop", "a", "b", "c", "d", "e", "f"]),
        ("<body>हिन्दी नमस्ते".encode(), ["हिन्दी", "नमस्ते"]),
        ('<meta charset="gb2312"><body>朱镕基'.encode("gbk"), ["朱镕基"]),
        ('<meta content="text/html; charset=Shift_JIS"><body>日本'.encode("cp932"), ["日本"]),
        ("<body>naïve €".encode("cp1252"), ["naïve", "€"]),
        ("<body>naïve".encode("utf-16"), ["naïve"]),
        ('<meta charset="utf-16"><body>naïve'.encode(), ["naïve"]),
        ('<meta charset="klingon"><body>naïve'.encode(), ["naïve"]),
        ('<meta charset="undefined"><body>naïve'.encode(), ["naïve"]),
        ('<?xml version="1.0" encoding="utf-8"?><html><body>naïve'.encode(), ["naïve"]),
    ],
)  # fmt: skip
def test_words(page: bytes, words: list[str]) -> None:
    assert body_words(page) == words


def test_pages_in_other_columns(run: Run, ctx: Context) -> None:
    table = pa.table({"url": ["u"], "html": [b"<p>x"]})
    node = ExtractHtmlBody(ctx, (DataSourceNode(ctx, ArrowTableDataSet(table)),))
    with pytest.raises(SmallpondError, match=r"no column 'content'; there are \['url', 'html'\]"):
        run(node)


def test_without_the_extra(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys  # noqa: PLC0415

    monkeypatch.setitem(sys.modules, "warcio", None)
    monkeypatch.setitem(sys.modules, "lxml", None)
    with pytest.raises(PlanError, match=r"ImportWarcFiles-0: needs warcio \(pip install 'openw"):
        ImportWarcFiles(ctx, ())
    with pytest.raises(PlanError, match=r"ExtractHtmlBody-1: needs lxml \(pip install 'openweek"):
        ExtractHtmlBody(ctx, ())
