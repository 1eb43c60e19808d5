"""Walks over plans, and the step that the original has before running them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from smallpond.logical.dataset import ParquetDataSet
from smallpond.logical.node import (
    ArrowBatchNode,
    ArrowComputeNode,
    ArrowStreamNode,
    ConsolidateNode,
    Context,
    DataSetPartitionNode,
    DataSinkNode,
    DataSourceNode,
    HashPartitionNode,
    LimitNode,
    LogicalPlan,
    LogicalPlanVisitor,
    Node,
    PandasBatchNode,
    PandasComputeNode,
    ProjectionNode,
    PythonScriptNode,
    RootNode,
    SqlEngineNode,
    UnionNode,
)
from smallpond.logical.optimizer import Optimizer
from tests.smallpond.logical.conftest import Run


def one_of_each(ctx: Context) -> dict[str, list[Node]]:
    source = DataSourceNode(ctx, None)
    hashed = HashPartitionNode(ctx, (source,), 2, ["a"])
    return {
        "visit_data_source_node": [source],
        "visit_data_sink_node": [DataSinkNode(ctx, (source,), "out")],
        "visit_root_node": [RootNode(ctx, (source,))],
        "visit_union_node": [UnionNode(ctx, (source,))],
        "visit_consolidate_node": [ConsolidateNode(ctx, hashed, [])],
        "visit_partition_node": [hashed, DataSetPartitionNode(ctx, (source,), 2)],
        "visit_python_script_node": [PythonScriptNode(ctx, (source,))],
        "visit_arrow_compute_node": [
            ArrowComputeNode(ctx, (source,)),
            PandasComputeNode(ctx, (source,)),
        ],
        "visit_arrow_stream_node": [
            ArrowStreamNode(ctx, (source,)),
            ArrowBatchNode(ctx, (source,)),
            PandasBatchNode(ctx, (source,)),
        ],
        "visit_query_engine_node": [SqlEngineNode(ctx, (source,), "SELECT 1")],
        "visit_projection_node": [ProjectionNode(ctx, source, ["a"])],
        "visit_limit_node": [LimitNode(ctx, source, 1)],
    }


METHODS = sorted(one_of_each(Context()))


def test_there_is_a_method_for_every_kind() -> None:
    methods = inspect.getmembers(LogicalPlanVisitor, inspect.isfunction)
    assert [name for name, _ in methods if name.startswith("visit_")] == METHODS


@pytest.mark.parametrize("method", METHODS)
def test_every_kind_has_its_method(ctx: Context, method: str) -> None:
    def found(self: Any, node: Node, depth: int) -> tuple[Node, int]:
        return node, depth

    visitor: Any = type("One", (LogicalPlanVisitor,), {method: found})()
    for name, nodes in one_of_each(ctx).items():
        for node in nodes:
            assert visitor.visit(node, 5) == ((node, 5) if name == method else None)


def test_a_walk(ctx: Context) -> None:
    class Lines(LogicalPlanVisitor[None]):
        """A line for each visit."""

        def __init__(self) -> None:
            self.lines: list[str] = []

        def generic_visit(self, node: Node, depth: int) -> None:
            self.lines.append(f"{depth} {node.label}")
            super().generic_visit(node, depth)

    class Own(Node):
        """Of no known kind."""

    source = DataSourceNode(ctx, None)
    both = UnionNode(ctx, (LimitNode(ctx, source, 1), Own(ctx, (source,))))
    visitor = Lines()
    visitor.visit(both)
    assert visitor.lines == [
        *("0 UnionNode-3", "1 LimitNode-1", "2 DataSourceNode-0"),
        *("1 Own-2", "2 DataSourceNode-0"),
    ]


def test_an_optimised_plan_has_the_same_rows(run: Run, ctx: Context, urls: Path) -> None:
    source = DataSourceNode(ctx, ParquetDataSet([str(urls)]))
    parts = DataSetPartitionNode(ctx, (source,), 4, partition_by_rows=True)
    few = LimitNode(ctx, SqlEngineNode(ctx, (parts,), "SELECT id FROM {0} WHERE id > 7"), 2)
    # The original's loses the limit here.
    node = SqlEngineNode(ctx, (few,), "SELECT id + 1 AS id FROM {0}")
    root = Optimizer(exclude_nodes={source}).visit(node)
    assert LogicalPlan(ctx, root).nodes[-1] is node
    assert run(root).final_output.num_rows == 2
