"""Web pages out of WARC files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa

from smallpond.errors import CorruptedDataError
from smallpond.storage import filesystem_of

_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


class Page(NamedTuple):
    """An answer of a web server.

    Attributes:
        domain: host and port.
        date: when it was fetched, in ISO form.
        content: without the headers, and without the compression that these speak of.
    """

    url: str
    domain: str
    date: str
    content: bytes


def pages(path: str) -> Iterator[Page]:
    """The responses in a WARC file, plain or compressed by gzip or Zstandard, in order.

    Raises:
        CorruptedDataError: it is no WARC file, or ends too early.
    """
    from warcio.archiveiterator import ArchiveIterator  # noqa: PLC0415 (of an extra)
    from warcio.exceptions import ArchiveLoadFailed  # noqa: PLC0415

    filesystem, place = filesystem_of(path, {})
    with filesystem.open(place, "rb") as file:
        try:
            for record in ArchiveIterator(_plain(file)):
                if record.format != "warc":
                    raise CorruptedDataError(f"{path}: it is no WARC file")
                page = _page(record) if record.rec_type == "response" else None
                while record.raw_stream.read(1 << 16):
                    pass
                # What is missing; warcio itself takes the end of a file for that of a record.
                if record.raw_stream.limit:
                    raise CorruptedDataError(f"{path}: it ends within a record")
                if page is not None:
                    yield page
        except (ArchiveLoadFailed, pa.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the file system
            raise CorruptedDataError(f"{path}: {' '.join(str(error).split())}") from error


def _plain(file: IO[bytes]) -> Any:
    """The file's text; compression of any number of pieces is taken off."""
    begin = file.read(4)
    file.seek(0)
    for mark, codec in _COMPRESSED.items():
        if begin.startswith(mark):
            return pa.CompressedInputStream(pa.PythonFile(file, "r"), codec)
    return file


def _page(record: Any) -> Page:
    url = record.rec_headers.get_header("WARC-Target-URI", "").strip("<>")
    date = record.rec_headers.get_header("WARC-Date", "")
    return Page(url, urlsplit(url).netloc, date, record.content_stream().read())
