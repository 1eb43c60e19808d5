"""The original's step between making a plan and running it."""

from __future__ import annotations

from collections.abc import Iterable

from smallpond.logical.base_node import Node
from smallpond.logical.visitor import LogicalPlanVisitor


class Optimizer(LogicalPlanVisitor[Node]):
    """Returns nodes as they are, for programs that call the original's before they run a plan.

    Here plans are improved when they are run, below the level of nodes: consecutive queries become
    one, filters and columns move to where files are read. There is nothing left to do before, and
    the original's way of doing it, new nodes with queries put together as text, could lose a limit.

    Args:
        exclude_nodes: accepted; that several nodes read one never joins it to any of them.
    """

    def __init__(self, exclude_nodes: Iterable[Node] = ()) -> None:
        self.exclude_nodes = set(exclude_nodes)

    def visit(self, node: Node, depth: int = 0) -> Node:  # noqa: ARG002
        """The same node, whose plan gives the best that there is of it."""
        return node
