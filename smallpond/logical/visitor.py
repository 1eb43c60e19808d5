"""Walks over nodes, by a method for each kind."""

from __future__ import annotations

from typing import Generic, TypeVar

from smallpond.logical.base_node import Node
from smallpond.logical.partition_nodes import PartitionNode
from smallpond.logical.python_nodes import (
    ArrowBatchNode,
    ArrowComputeNode,
    ArrowStreamNode,
    PandasBatchNode,
    PandasComputeNode,
    PythonScriptNode,
)
from smallpond.logical.sinks import DataSinkNode, RootNode
from smallpond.logical.table_nodes import (
    ConsolidateNode,
    DataSourceNode,
    LimitNode,
    ProjectionNode,
    SqlEngineNode,
    UnionNode,
)

Made = TypeVar("Made")


class LogicalPlanVisitor(Generic[Made]):
    """Calls a method for a node by its kind, and `generic_visit` where there is none.

    A subclass overrides ``visit_limit_node`` and so on for the kinds that it cares about, and calls
    `generic_visit` in them to get to the inputs.

    Example:
        >>> class Sources(LogicalPlanVisitor[None]):
        ...     def __init__(self):
        ...         self.found = []
        ...     def visit_data_source_node(self, node, depth):
        ...         self.found.append((depth, node.label))
        >>> from smallpond.logical.node import Context, LimitNode
        >>> ctx, visitor = Context(), Sources()
        >>> visitor.visit(LimitNode(ctx, DataSourceNode(ctx, None), 3))
        >>> visitor.found
        [(1, 'DataSourceNode-0')]
    """

    def visit(self, node: Node, depth: int = 0) -> Made | None:
        """Calls the method for a node.

        Args:
            node: where to begin.
            depth: how far it is from where the walk began.

        Returns:
            What the method returned.
        """
        for kind, name in _METHODS.items():
            if isinstance(node, kind):
                made: Made | None = getattr(self, name)(node, depth)
                return made
        return self.generic_visit(node, depth)

    def generic_visit(self, node: Node, depth: int) -> Made | None:
        """Visits the inputs; what several nodes read is visited as often."""
        for dep in node.input_deps:
            self.visit(dep, depth + 1)
        return None

    def visit_data_source_node(self, node: DataSourceNode, depth: int) -> Made | None:
        """A data set."""
        return self.generic_visit(node, depth)

    def visit_data_sink_node(self, node: DataSinkNode, depth: int) -> Made | None:
        """A folder for results."""
        return self.generic_visit(node, depth)

    def visit_root_node(self, node: RootNode, depth: int) -> Made | None:
        """All results."""
        return self.generic_visit(node, depth)

    def visit_union_node(self, node: UnionNode, depth: int) -> Made | None:
        """Several inputs as one."""
        return self.generic_visit(node, depth)

    def visit_consolidate_node(self, node: ConsolidateNode, depth: int) -> Made | None:
        """Fewer partitions."""
        return self.generic_visit(node, depth)

    def visit_partition_node(self, node: PartitionNode, depth: int) -> Made | None:
        """Other partitions, of whatever kind."""
        return self.generic_visit(node, depth)

    def visit_python_script_node(self, node: PythonScriptNode, depth: int) -> Made | None:
        """A function of data sets."""
        return self.generic_visit(node, depth)

    def visit_arrow_compute_node(
        self, node: ArrowComputeNode | PandasComputeNode, depth: int
    ) -> Made | None:
        """A function of whole partitions, as Arrow tables or pandas frames."""
        return self.generic_visit(node, depth)

    def visit_arrow_stream_node(
        self, node: ArrowStreamNode | ArrowBatchNode | PandasBatchNode, depth: int
    ) -> Made | None:
        """A function of readers, or of batches as Arrow tables or pandas frames."""
        return self.generic_visit(node, depth)

    def visit_query_engine_node(self, node: SqlEngineNode, depth: int) -> Made | None:
        """A query."""
        return self.generic_visit(node, depth)

    def visit_projection_node(self, node: ProjectionNode, depth: int) -> Made | None:
        """Some columns."""
        return self.generic_visit(node, depth)

    def visit_limit_node(self, node: LimitNode, depth: int) -> Made | None:
        """The first rows."""
        return self.generic_visit(node, depth)


_METHODS: dict[type[Node], str] = {
    DataSourceNode: "visit_data_source_node",
    DataSinkNode: "visit_data_sink_node",
    RootNode: "visit_root_node",
    UnionNode: "visit_union_node",
    ConsolidateNode: "visit_consolidate_node",
    PartitionNode: "visit_partition_node",
    PythonScriptNode: "visit_python_script_node",
    ArrowComputeNode: "visit_arrow_compute_node",
    PandasComputeNode: "visit_arrow_compute_node",
    ArrowStreamNode: "visit_arrow_stream_node",
    ArrowBatchNode: "visit_arrow_stream_node",
    PandasBatchNode: "visit_arrow_stream_node",
    SqlEngineNode: "visit_query_engine_node",
    ProjectionNode: "visit_projection_node",
    LimitNode: "visit_limit_node",
}
