"""Nodes that pass on what they get."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from smallpond.execution.task import StreamOutput
from smallpond.logical.node import ArrowComputeNode, ArrowStreamNode

if TYPE_CHECKING:
    from smallpond.execution.task import RuntimeContext


class CopyArrowTable(ArrowComputeNode):
    """The first input, as a table."""

    def process(self, runtime_ctx: RuntimeContext, input_tables: list[pa.Table]) -> pa.Table:  # noqa: ARG002
        """The first table."""
        return input_tables[0]


class StreamCopy(ArrowStreamNode):
    """The first input, batch by batch."""

    def process(
        self,
        runtime_ctx: RuntimeContext,  # noqa: ARG002
        input_readers: list[pa.RecordBatchReader],
    ) -> Iterator[StreamOutput]:
        """A table for each batch, and one without rows for the columns' sake."""
        yield StreamOutput(input_readers[0].schema.empty_table())
        for i, batch in enumerate(input_readers[0]):
            yield StreamOutput(pa.table(batch), batch_indices=[i])
