"""Web crawls: pages out of WARC files, and the words of pages."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from smallpond.contrib.html_words import body_words
from smallpond.contrib.warc_records import Page, pages
from smallpond.errors import PlanError
from smallpond.logical.node import ArrowStreamNode, Context, Node, PythonScriptNode

if TYPE_CHECKING:
    from smallpond.execution.task import RuntimeContext
    from smallpond.logical.dataset import DataSet

_GROUP_BYTES = 64 << 20
_GROUP_PAGES = 16_384


class ImportWarcFiles(PythonScriptNode):
    """The responses in WARC files, as rows: the URL, its host, when it was fetched, the content.

    Each file of the first input becomes a Parquet file; partition by files to work on several at a
    time. Needs warcio (``pip install 'openweek[warc]'``).

    Example:
        >>> from smallpond.logical.dataset import FileSet
        >>> from smallpond.logical.node import DataSetPartitionNode, DataSourceNode
        >>> ctx = Context()
        >>> files = DataSourceNode(ctx, FileSet(["crawl/*.warc.gz"]))
        >>> parts = DataSetPartitionNode(ctx, (files,), npartitions=8)
        >>> pages = ImportWarcFiles(ctx, (parts,))
        >>> words = ExtractHtmlBody(ctx, (pages,))
    """

    schema: ClassVar[pa.Schema] = pa.schema(
        [
            ("url", pa.string()),
            ("domain", pa.string()),
            ("date", pa.string()),
            ("content", pa.binary()),
        ]
    )

    def __init__(self, ctx: Context, input_deps: Sequence[Node], **options: Any) -> None:
        super().__init__(ctx, input_deps, **options)
        _check_installed(self, "warcio")

    def process(
        self, runtime_ctx: RuntimeContext, input_datasets: list[DataSet], output_path: str
    ) -> bool:
        """Writes a file for each one that it reads."""
        name = f"{output_path}/{runtime_ctx.task.output_filename}"
        for i, path in enumerate(input_datasets[0].resolved_paths):
            with pq.ParquetWriter(
                f"{name}-{i:05}.parquet", self.schema, compression="zstd"
            ) as writer:
                for group in _groups(pages(path)):
                    rows = [page._asdict() for page in group]
                    writer.write_table(pa.Table.from_pylist(rows, schema=self.schema))
        return True


class ExtractHtmlBody(ArrowStreamNode):
    """The words in the bodies of HTML pages, as column ``tokens`` in the place of ``content``.

    Words are what stands between blanks and punctuation; scripts and styles have none. Needs lxml
    (``pip install 'openweek[warc]'``).
    """

    schema: ClassVar[pa.Schema] = pa.schema(
        [
            ("url", pa.string()),
            ("domain", pa.string()),
            ("date", pa.string()),
            ("tokens", pa.list_(pa.string())),
        ]
    )

    def __init__(self, ctx: Context, input_deps: Sequence[Node], **options: Any) -> None:
        super().__init__(ctx, input_deps, **options)
        _check_installed(self, "lxml")

    def process(
        self,
        runtime_ctx: RuntimeContext,  # noqa: ARG002
        input_readers: list[pa.RecordBatchReader],
    ) -> Iterator[pa.Table]:
        """A table for each batch of pages."""
        [reader] = input_readers
        kept = self.schema.names[:-1]
        missing = sorted({*kept, "content"} - set(reader.schema.names))
        if missing:
            raise PlanError(f"no column {missing[0]!r}; there are {reader.schema.names}")
        yield self.schema.empty_table()
        for batch in reader:
            words = [body_words(page or b"") for page in batch.column("content").to_pylist()]
            made = pa.table(batch.select(kept)).append_column("tokens", [words])
            yield made.cast(self.schema)


def _check_installed(node: Node, package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise PlanError(f"{node.label}: needs {package} (pip install 'openweek[warc]')")


def _groups(found: Iterator[Page]) -> Iterator[list[Page]]:
    """Pages that are written together, few enough to be held in memory."""
    group: list[Page] = []
    size = 0
    for page in found:
        group.append(page)
        size += len(page.content)
        if size >= _GROUP_BYTES or len(group) >= _GROUP_PAGES:
            yield group
            group, size = [], 0
    if group:
        yield group
