"""From nodes to the one plan language: a node is lowered to a plan over those of its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smallpond.logical.base_node import Node
from smallpond.logical.sinks import DataSinkNode, RootNode
from smallpond.logical.tree import LogicalPlan
from smallpond.plan import Concat, Format, Gather, Held, Plan, Project, Write

if TYPE_CHECKING:
    from smallpond.execution.plan import ExecutionPlan
    from smallpond.execution.task import RuntimeContext

WRITTEN = " (files)"


@dataclass(frozen=True)
class Lowered:
    """A plan of nodes as one plan, whose rows name finished files.

    Attributes:
        plan: its rows are (index into ``wanted``, file).
        wanted: nodes whose files are wanted: named ones, sinks, and the results.
        results: those whose files are the final result.
    """

    plan: Plan
    wanted: tuple[Node, ...]
    results: tuple[Node, ...]


class Planner:
    """Makes plans of nodes ready to run."""

    def __init__(self, runtime_ctx: RuntimeContext) -> None:
        self.runtime_ctx = runtime_ctx

    def create_exec_plan(
        self, logical_plan: LogicalPlan, manifest_only_final_results: bool = True
    ) -> ExecutionPlan:
        """What can be run.

        Args:
            logical_plan: the nodes.
            manifest_only_final_results: list the files of the final result, instead of putting
                them into a folder of their own.
        """
        from smallpond.execution.plan import ExecutionPlan  # noqa: PLC0415

        return ExecutionPlan(
            self.runtime_ctx, logical_plan, manifest_only=manifest_only_final_results
        )


def lower(logical_plan: LogicalPlan, job: RuntimeContext) -> Lowered:
    """One plan for everything that is wanted of a plan of nodes."""
    root = logical_plan.root_node
    nodes = logical_plan.nodes
    results = root.input_deps if isinstance(root, RootNode) else (root,)
    named = [node for node in nodes if node.output_name or node.output_path]
    wanted = tuple(dict.fromkeys((*named, *results)))
    plans = _lowered(nodes, wanted, job)
    listings = [
        Project(Gather(_files(node, plans[node.id])), f"{i} AS node, file", label="results")
        for i, node in enumerate(wanted)
    ]
    return Lowered(Concat(tuple(listings)), wanted, results)


def _lowered(nodes: list[Node], wanted: tuple[Node, ...], job: RuntimeContext) -> dict[int, Plan]:
    readers: dict[int, int] = {}
    for node in nodes:
        for dep in node.input_deps if not isinstance(node, RootNode) else ():
            readers[dep.id] = readers.get(dep.id, 0) + 1
    for node in wanted:
        readers[node.id] = readers.get(node.id, 0) + 1
    plans: dict[int, Plan] = {}
    for node in nodes:
        if isinstance(node, RootNode):
            continue
        made = node.lower(tuple(plans[dep.id] for dep in node.input_deps), job)
        # What several nodes read is computed once, so that all of them see the same rows.
        shared = readers.get(node.id, 0) > 1 and not node.at_rest
        plans[node.id] = Held(made) if shared else made
    return plans


def _files(node: Node, plan: Plan) -> Plan:
    """The files of a node's rows: those in which they lie, or else new ones."""
    options = getattr(node, "parquet", ())
    hive = getattr(node, "hive_partitioning", False) and not isinstance(node, DataSinkNode)
    column = getattr(node, "data_partition_column", None)
    kept = not getattr(node, "drop_partition_column", False)
    return Held(
        Write(
            plan,
            "",
            Format.PARQUET,
            options,
            (column,) if hive and column and kept else (),
            as_is=True,
            label=f"{node.label}{WRITTEN}",
        )
    )
