"""Whole plans of nodes, as text and as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smallpond.errors import PlanError
from smallpond.logical.base_node import Context, Node, all_nodes

FINAL = "FinalResults"


@dataclass(frozen=True)
class Numbers:
    """What the tasks of one node did."""

    tasks: int = 0
    retries: int = 0
    rows: int = 0
    bytes: int = 0
    cpu_s: float = 0.0

    def text(self) -> str:
        """In a line."""
        retried = f", {self.retries} retried" if self.retries else ""
        return (
            f"{self.tasks} tasks{retried}, {self.rows} rows, {self.bytes} bytes, "
            f"{self.cpu_s:.3f} s of CPU"
        )


class LogicalPlan:
    """A graph of nodes.

    Attributes:
        ctx: that all nodes share.
        root_node: whose results are wanted.
        numbers: by node, once the plan has been run.
    """

    def __init__(self, ctx: Context, root_node: Node) -> None:
        if root_node.context is not ctx:
            raise PlanError(f"LogicalPlan: {root_node.label} belongs to another Context")
        self.ctx = ctx
        self.root_node = root_node
        self.numbers: Mapping[str, Numbers] = {}
        names: dict[str, Node] = {}
        for node in self.nodes:
            _ = node.dims  # partitions that do not match are a mistake from now on
            if node.output_name == FINAL:
                raise PlanError(f"{node.label}: output_name {FINAL!r} is that of all results")
            if node.output_name is not None and names.setdefault(node.output_name, node) != node:
                raise PlanError(
                    f"LogicalPlan: {names[node.output_name].label} and {node.label} have the same "
                    f"output_name {node.output_name!r}"
                )

    @property
    def nodes(self) -> list[Node]:
        """Every node once, inputs before those that read them."""
        return list(all_nodes(self.root_node))

    def explain_str(self) -> str:
        """A node a line, inputs below what reads them; with numbers once it has been run."""
        lines: list[str] = []
        seen: set[int] = set()

        def visit(node: Node, depth: int) -> None:
            again = " (see above)" if node.id in seen and node.input_deps else ""
            lines.append("  " * depth + self._line(node) + again)
            if node.id in seen:
                return
            seen.add(node.id)
            for dep in node.input_deps:
                visit(dep, depth + 1)

        visit(self.root_node, 0)
        return "\n".join(lines)

    def _line(self, node: Node) -> str:
        plural = "s" if node.num_partitions != 1 else ""
        parts = [f"{node.num_partitions} partition{plural}"]
        if node.output_name is not None:
            parts.append(f"output {node.output_name}")
        if node.label in self.numbers:
            parts.append(self.numbers[node.label].text())
        described = f": {node.described}" if node.described else ""
        return f"{node.label}{described} [{'; '.join(parts)}]"

    def __str__(self) -> str:
        return self.explain_str()

    def graph(self) -> Any:
        """The graph as a ``graphviz.Digraph``.

        Raises:
            PlanError: the graphviz package is not installed.
        """
        try:
            from graphviz import Digraph  # noqa: PLC0415
        except ImportError as error:
            raise PlanError("LogicalPlan.graph: needs graphviz (pip install graphviz)") from error
        made = Digraph(comment="smallpond")
        for node in self.nodes:
            made.node(str(node.id), self._line(node))
            for dep in node.input_deps:
                made.edge(str(dep.id), str(node.id))
        return made
