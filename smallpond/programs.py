"""The programs of partitions: what they are, and how new ones are made of them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass

from smallpond.functions import Udf
from smallpond.leaves import no_rows, share_of
from smallpond.plan import (
    ROWWISE,
    Aggregate,
    Concat,
    Dim,
    Files,
    FileSlice,
    Filter,
    Function,
    Listed,
    Memory,
    Parts,
    Plan,
    Project,
    Sql,
    TaskOutput,
    Write,
    walk,
)
from smallpond.rules import is_rowwise
from smallpond.sql import fill_some


@dataclass(frozen=True)
class Partition:
    """One partition of a node's rows: a program, and which partition it is."""

    program: Plan
    dims: tuple[Dim, ...] = ()


def concatenated(programs: Sequence[Plan]) -> Plan:
    """Programs one after the other; neighbouring leaves of a kind become one."""
    flat: list[Plan] = []
    for program in programs:
        flat += program.sources if isinstance(program, Concat) else [program]
    merged: list[Plan] = []
    for program in flat:
        last = merged[-1] if merged else None
        if isinstance(program, Files) and isinstance(last, Files) and _alike(last, program):
            merged[-1] = dataclasses.replace(last, files=last.files + program.files)
        elif isinstance(program, Parts) and isinstance(last, Parts):
            merged[-1] = Parts(last.parts + program.parts)
        elif isinstance(program, Listed) and isinstance(last, Listed) and program.like == last.like:
            merged[-1] = dataclasses.replace(last, input=concatenated([last.input, program.input]))
        else:
            merged.append(program)
    return merged[0] if len(merged) == 1 else Concat(tuple(merged))


def _alike(a: Files, b: Files) -> bool:
    return dataclasses.replace(a, files=()) == dataclasses.replace(b, files=())


def shared(partition: Partition, others: Sequence[Partition]) -> tuple[Dim, ...]:
    """Which partition it is, as far as the others have the same dimensions."""
    names = {dim.dimension for dim in others[0].dims}
    dims = [dim for dim in partition.dims if dim.dimension in names]
    return tuple(sorted(dims, key=lambda dim: dim.dimension))


def local(node: Plan, inputs: tuple[Plan, ...], dims: tuple[Dim, ...]) -> Partition:
    """A node over one partition; what its SQL says of the partition's number is settled."""
    node = node.with_inputs(inputs)
    values = {dim.dimension: dim.index for dim in dims}
    match node:
        case Project():
            node = dataclasses.replace(node, select=fill_some(node.select, values))
        case Filter():
            node = dataclasses.replace(node, condition=fill_some(node.condition, values))
        case Sql():
            setup = tuple(fill_some(statement, values) for statement in node.setup)
            node = dataclasses.replace(node, query=fill_some(node.query, values), setup=setup)
    return Partition(node, dims)


def shuffled(files: Sequence[FileSlice], seed: int) -> tuple[FileSlice, ...]:
    """The files in an order that the seed decides."""
    order = list(files)
    random.Random(seed).shuffle(order)
    return tuple(order)


def shown(dims: tuple[Dim, ...]) -> str:
    """Which partition it is, for people."""
    return ", ".join(f"{dim.dimension} {dim.index}/{dim.count}" for dim in dims)


def name_of(plan: Plan) -> str:
    """What a node is called in progress bars and reports."""
    match plan:
        case Project() | Sql() | Function() | Write() | Aggregate():
            return plan.label
        case Concat() if plan.sources:
            return name_of(plan.sources[0])
    return {Files: "read", Memory: "table"}.get(type(plan), type(plan).__name__.lower())


def grouped(sources: Sequence[Plan], wanted: int) -> list[Plan]:
    """Neighbouring programs as one, so that there are at most as many as wanted."""
    n = min(len(sources), max(1, wanted))
    return [concatenated(sources[share_of(len(sources), n, i)]) for i in range(n)]


def is_cheap(program: Plan) -> bool:
    """Whether a program only reads what lies somewhere."""
    cheap = Files | Listed | Memory | Parts | TaskOutput | Concat
    return all(isinstance(node, cheap) for node in walk(program))


def udfs_of(program: Plan) -> tuple[Udf, ...]:
    """The functions that the SQL of a program calls."""
    return tuple(
        udf
        for node in walk(program)
        if isinstance(node, Project | Filter | Sql)
        for udf in node.udfs
    )


def has_no_function(program: Plan) -> bool:
    """Whether a program is SQL all through."""
    return not any(isinstance(node, Function) for node in walk(program))


def is_at_rest(program: Plan) -> bool:
    """Whether tasks, or the driver, have left all rows where they can be read."""
    return all(isinstance(node, Memory | Parts | TaskOutput | Concat) for node in walk(program))


def is_light(program: Plan) -> bool:
    """Whether a program only picks and reshapes rows, in SQL."""
    light = Files | Listed | Memory | Parts | TaskOutput | Concat | Project | Filter
    return all(isinstance(node, light) for node in walk(program))


def base_files(program: Plan) -> Files | None:
    """The files under a chain of row-wise nodes."""
    while not isinstance(program, Files):
        rowwise = (isinstance(program, Project) and is_rowwise(program.select)) or isinstance(
            program, Filter
        )
        python = isinstance(program, Function) and program.shape in ROWWISE
        if not (rowwise or python):
            return None
        program = program.inputs[0]
    return program


def on_files(program: Plan, files: Files, group: Sequence[FileSlice]) -> Plan:
    """The same chain over some of the files; over no rows of the first if there are none."""
    if isinstance(program, Files):
        return dataclasses.replace(files, files=tuple(group) or no_rows(files))
    return program.with_inputs((on_files(program.inputs[0], files, group),))
