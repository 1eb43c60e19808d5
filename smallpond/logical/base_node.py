"""What all nodes have: a place in a graph, a name, what their tasks ask for."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Self

from smallpond.errors import PlanError
from smallpond.functions import FunctionRef, Udf
from smallpond.logical.udf import UserDefinedFunction, registered
from smallpond.plan import Demand, Plan

if TYPE_CHECKING:
    from smallpond.execution.task import RuntimeContext, Task


class Context:
    """What the nodes of a plan share: their numbers, and functions for their queries."""

    def __init__(self) -> None:
        self.udfs: dict[str, Udf] = {}
        self._next_id = 0  # a plain number, for nodes travel and their context with them

    def new_id(self) -> int:
        """The number of the next node."""
        self._next_id += 1
        return self._next_id - 1

    def create_function(
        self,
        name: str,
        func: Callable[..., Any],
        params: Any,
        return_type: Any,
        use_arrow_type: bool = False,
    ) -> str:
        """Makes a function known under a name, for ``udfs`` of nodes; returns the name.

        Args:
            name: in SQL.
            func: of values, or of Arrow arrays.
            params: types of its parameters; None or `UDFAnyParameters()` for any.
            return_type: of its result.
            use_arrow_type: it takes and gives Arrow arrays instead of single values.
        """
        made = UserDefinedFunction(name, func, params, return_type, use_arrow_type)
        self.udfs[name] = registered("create_function", made)
        return name

    def create_external_module(self, module_path: str, name: str | None = None) -> str:
        """Makes a Python module known, whose ``register(conn)`` adds functions."""
        self.udfs[name or module_path] = Udf(name or module_path, path=module_path)
        return name or module_path

    def create_duckdb_extension(self, extension_path: str, name: str | None = None) -> str:
        """Makes a DuckDB extension in a file known."""
        return self.create_external_module(extension_path, name)

    def find(self, operation: str, value: Any) -> Udf:
        """The function of a name, or one made by ``@udf``.

        Raises:
            PlanError: nobody has created it.
        """
        if not isinstance(value, str):
            return registered(operation, value)
        if value not in self.udfs:
            raise PlanError(
                f"{operation}: no function {value!r}; Context.create_function makes one, "
                f"and there are {sorted(self.udfs)}"
            )
        return self.udfs[value]


# By these, the original's planner has nodes make tasks.
_NEVER_CALLED = (
    *("create_task", "create_producer_task", "create_consumer_task", "create_merge_task"),
    "create_split_task",
)


class Node:
    """A step of a computation; what it makes lies in partitions.

    Attributes:
        context: what it shares with the other nodes.
        id: its number.
        input_deps: the nodes that it reads.
        output_name: names its results, which are kept as Parquet files then.
        output_path: the folder for these files; in the job's own folder by default.
    """

    enable_resource_boost = False
    # Whether several readers cost no more than one, so that nothing need be kept for them.
    at_rest = False
    # What `spawn` has to return, for nodes whose tasks a subclass may make.
    task_class: ClassVar[type[Task] | None] = None

    def __init__(
        self,
        ctx: Context,
        input_deps: Sequence[Node],
        output_name: str | None = None,
        output_path: str | None = None,
        cpu_limit: int | None = 1,
        gpu_limit: float = 0,
        memory_limit: int | None = None,
    ) -> None:
        self.context = ctx
        self.input_deps = tuple(input_deps)
        self.id = ctx.new_id()
        self.output_name = output_name
        self.output_path = output_path
        self.cpu_limit = max(cpu_limit or 1, int(8 * gpu_limit))
        self.gpu_limit = gpu_limit
        self.memory_limit = memory_limit
        for dep in self.input_deps:
            if not isinstance(dep, Node):
                raise PlanError(f"{self.label}: input_deps takes nodes, got {dep!r}")
            if dep.context is not ctx:
                raise PlanError(f"{self.label}: {dep.label} belongs to another Context")
        for name, value in (("cpu_limit", cpu_limit), ("memory_limit", memory_limit)):
            if value is not None and value <= 0:
                raise PlanError(f"{self.label}: {name} must be positive, got {value}")
        if output_name is not None and not re.fullmatch(r"[^\W_][\w.-]*", output_name):
            raise PlanError(
                f"{self.label}: output_name: a letter or digit, then letters, digits, '_', '-' and "
                f"'.' expected, got {output_name!r}"
            )
        for name in _NEVER_CALLED if self.task_class is not None else ("spawn", *_NEVER_CALLED):
            if hasattr(type(self), name):
                raise PlanError(
                    f"{self.label}: {name}() is not called, for plans here are not made of tasks; "
                    "override process() of a node that runs a function"
                )

    @property
    def label(self) -> str:
        """What messages and reports call it."""
        return f"{type(self).__name__}-{self.id}"

    def __repr__(self) -> str:
        return self.label

    @cached_property
    def dims(self) -> dict[str, int]:
        """The dimensions that its partitions have, and how many there are in each."""
        return self._dims()

    def _dims(self) -> dict[str, int]:
        return matching_dims(self)

    @property
    def num_partitions(self) -> int:
        """How many partitions there are."""
        return prod(self.dims.values())

    @property
    def described(self) -> str:
        """What it does, in one line."""
        return ""

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:
        """The plan that it means.

        Args:
            inputs: plans of ``input_deps``.
            job: that will run it.
        """
        raise NotImplementedError

    def slim_copy(self) -> Self:
        """A copy that knows no other node, to travel to workers."""
        slim = copy.copy(self)
        slim.__dict__.pop("dims", None)
        slim.input_deps = ()
        slim.context = Context()
        return slim

    def demand(self) -> Demand:
        """What its tasks ask for; one processor is what any task gets."""
        cpus = self.cpu_limit if self.cpu_limit > 1 else None
        return Demand(cpus, self.memory_limit, float(self.gpu_limit))

    def _method(self, name: str, given: Callable[..., Any] | None, base: type[Node]) -> FunctionRef:
        """The function given to the constructor, or else the subclass's own method.

        Raises:
            PlanError: there is neither.
        """
        if given is not None:
            return FunctionRef.of(given, self.label)
        if getattr(type(self), name) is getattr(base, name):
            raise PlanError(f"{self.label}: process_func= or a subclass with {name}() expected")
        return FunctionRef.of(getattr(self.slim_copy(), name), self.label)


def matching_dims(node: Node) -> dict[str, int]:
    """The dimensions of a node that works on matching partitions of its inputs.

    Raises:
        PlanError: two inputs have different numbers of partitions of the same dimension.
    """
    lead: dict[str, int] = {}
    for dep in node.input_deps:
        if len(dep.dims) > len(lead):
            lead = dep.dims
    for dep in node.input_deps:
        for name, count in dep.dims.items():
            if lead.get(name, count) != count:
                raise PlanError(
                    f"{node.label}: the inputs have {lead[name]} and {count} partitions of "
                    f"dimension {name!r}, which do not match (partition both alike)"
                )
    return dict(lead)


def all_nodes(root: Node) -> Iterator[Node]:
    """Every node once, inputs before those that read them."""
    seen: set[int] = set()

    def visit(node: Node) -> Iterator[Node]:
        if id(node) in seen:
            return
        seen.add(id(node))
        for dep in node.input_deps:
            yield from visit(dep)
        yield node

    return visit(root)
