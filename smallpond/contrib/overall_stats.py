"""Numbers over all partitions, from numbers of each."""

from __future__ import annotations

from collections.abc import Sequence

from smallpond.logical.node import ConsolidateNode, Context, DataSinkNode, Node, SqlEngineNode


def overall_stats(
    ctx: Context,
    inp: Sequence[Node],
    sql_per_part: str,
    sql_on_merged: str,
    output_name: str | None,
    output_dir: str | None = None,
    cpu_limit: int = 2,
    memory_limit: int | None = None,
) -> Node:
    """A query of each partition, and one of all that these gave.

    Args:
        ctx: that the nodes share.
        inp: what the first query calls ``{0}``, ``{1}`` and so on.
        sql_per_part: the first query.
        sql_on_merged: the second; ``{0}`` are the rows of the first, in one partition.
        output_name: names the result.
        output_dir: a folder for its files.
        cpu_limit: of both queries.
        memory_limit: of both queries; their share of a worker's by default.
    """
    each = SqlEngineNode(ctx, inp, sql_per_part, cpu_limit=cpu_limit, memory_limit=memory_limit)
    merged = SqlEngineNode(
        ctx,
        (ConsolidateNode(ctx, each, []),),
        sql_on_merged,
        output_name=output_name,
        cpu_limit=cpu_limit,
        memory_limit=memory_limit,
    )
    return merged if output_dir is None else DataSinkNode(ctx, (merged,), output_dir)
