"""Cuts a plan into tasks: where rows must move, and where work can be shared out.

Each partition of a node is a program, fused as far as it goes. A task is made where a program's
rows have to be handed on: at a `Repartition`, at the root, and around Python functions that can
run on several pieces of their input at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from smallpond.errors import PlanError
from smallpond.events import Stage
from smallpond.leaves import file_pieces, row_slices, share_of, size_of, table_slices
from smallpond.plan import (
    ROWWISE,
    Aggregate,
    By,
    Computed,
    Concat,
    Dim,
    Distinct,
    Files,
    Filter,
    Function,
    Gather,
    Held,
    Join,
    Limit,
    Listed,
    Memory,
    Partitioned,
    Parts,
    Plan,
    Project,
    Repartition,
    Sort,
    SortKey,
    Sql,
    TaskOutput,
    Union,
    Window,
    Write,
    walk,
)
from smallpond.programs import (
    Partition,
    base_files,
    concatenated,
    grouped,
    has_no_function,
    is_at_rest,
    is_cheap,
    is_light,
    local,
    name_of,
    on_files,
    shared,
    shown,
    shuffled,
)
from smallpond.rules import is_rowwise
from smallpond.task import (
    Resources,
    Sink,
    Task,
    ToDriver,
    ToParts,
    ToRowRanges,
    ToSplit,
)

SAMPLE_ROWS = 10_000
PIECE_BYTES = 64 << 20
PIECE_ROWS = 1 << 20
# A Python function takes much longer for a row than SQL does.
FUNCTION_SHARE = 16


@dataclass(frozen=True)
class Machine:
    """What the planner knows of where tasks will run.

    Attributes:
        cpus: processors of all workers together.
        worker_cpus, worker_gpus: of the largest worker.
        shared_memory: whether tasks run in this process, so that one of them can use all of it.
    """

    cpus: int
    worker_cpus: int
    worker_gpus: float
    shared_memory: bool


@dataclass
class Graph:
    """Tasks in an order in which they can run, and the programs of the root's partitions."""

    tasks: list[Task] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    outputs: list[Partition] = field(default_factory=list)


class Cutter:
    """Makes the graph of one plan."""

    def __init__(self, machine: Machine) -> None:
        self.graph = Graph()
        self._machine = machine
        self._done: dict[int, list[Partition]] = {}
        self._tasks: dict[str, Task] = {}

    # ---- the walk

    def cut(self, node: Plan) -> list[Partition]:
        """The partitions of a node's rows."""
        if id(node) not in self._done:
            self._done[id(node)] = self._cut(node)
        return self._done[id(node)]

    def _cut(self, node: Plan) -> list[Partition]:
        match node:
            case Files() | Memory() | Parts():
                return [Partition(node)]
            case Computed():
                return [Partition(Parts(parts), dims) for dims, parts in node.partitions]
            case Project() | Filter() | Write() | Listed() | Sort(partial=True):
                return [local(node, (p.program,), p.dims) for p in self.cut(node.input)]
            case Held():
                return self.handed(self.cut(node.input), name_of(node.input), is_cheap)
            case Partitioned():
                return [
                    Partition(
                        self._one(self.cut(source)), (Dim(node.dimension, i, len(node.inputs)),)
                    )
                    for i, source in enumerate(node.inputs)
                ]
            case Sql() | Function():
                return self._matched(node)
            case Gather():
                return self._gather(node)
            case Limit():
                return [self._limit(node)]
            case Aggregate() | Distinct() | Sort() | Window():
                program = self._one(self.cut(node.input))
                return [Partition(node.with_inputs((program,)))]
            case Join(broadcast=True):
                right = self._one(self.cut(node.right))
                return [
                    Partition(node.with_inputs((p.program, right)), p.dims)
                    for p in self.cut(node.left)
                ]
            case Join():
                sides = tuple(self._one(self.cut(side)) for side in node.inputs)
                return [Partition(node.with_inputs(sides))]
            case Union():
                sides = tuple(self._one(self.cut(side)) for side in node.inputs)
                return [Partition(node.with_inputs(sides))]
            case Concat():
                return [Partition(self._one([p for s in node.sources for p in self.cut(s)]))]
            case Repartition():
                return self._repartition(node)
        msg = f"{type(node).__name__} is no part of a plan"
        raise AssertionError(msg)

    def _matched(self, node: Sql | Function) -> list[Partition]:
        """Partitions of the inputs that belong together, by the dimensions that they share."""
        if not node.sources:
            return [Partition(node)]
        inputs = [self.cut(source) for source in node.sources]
        lead = max(inputs, key=lambda ps: len(ps[0].dims))
        if any(len(source) > len(lead) for source in inputs):
            counts = " and ".join(str(len(source)) for source in inputs)
            raise PlanError(
                f"{node.label}: the inputs have {counts} partitions, which do not match "
                "(repartition both alike, or one of them to 1)"
            )
        sides = [self._side(node, source, lead) for source in inputs]
        matched = []
        for partition in lead:
            programs = []
            for side, source in zip(sides, inputs, strict=True):
                program = side.get(shared(partition, source))
                if program is None:
                    raise PlanError(
                        f"{node.label}: no partition of an input matches "
                        f"{shown(partition.dims)}; the inputs have {len(lead)} and {len(source)} "
                        "partitions of the same dimension (repartition both alike)"
                    )
                programs.append(program)
            matched.append(local(node, tuple(programs), partition.dims))
        return matched

    def _side(
        self, node: Sql | Function, source: list[Partition], lead: list[Partition]
    ) -> dict[tuple[Dim, ...], Plan]:
        """What one input contributes to each partition, by the dimensions that the two share."""
        groups: dict[tuple[Dim, ...], list[Partition]] = {}
        for partition in source:
            groups.setdefault(shared(partition, lead), []).append(partition)
        if len(groups) < len(lead) or not (isinstance(node, Function) and node.shape in ROWWISE):
            # A query over Python functions reads what they have left behind; and what goes to
            # several partitions is computed once.
            used_often = len(groups) < len(lead)
            keep = is_cheap if used_often else has_no_function
            work = [p for group in groups.values() for p in group]
            done = iter(self.handed(work, name_of(work[0].program), keep))
            groups = {dims: [next(done) for _ in group] for dims, group in groups.items()}
        return {dims: self._one(group) for dims, group in groups.items()}

    def _one(self, partitions: Sequence[Partition]) -> Plan:
        """Partitions as one program, in their order; what is costly is done side by side first."""
        alone = len(partitions) == 1
        if self._machine.shared_memory and all(is_light(p.program) for p in partitions):
            return concatenated([p.program for p in partitions])
        if alone and self._machine.shared_memory:
            return self._spread(partitions[0].program)
        wanted = 2 * self._machine.cpus if alone else 1
        pieces = [
            Partition(piece, p.dims) for p in partitions for piece in self.pieces(p.program, wanted)
        ]
        if len(pieces) == 1 or all(is_cheap(piece.program) for piece in pieces):
            return concatenated([p.program for p in partitions])
        return concatenated(self._stage(pieces, name_of(partitions[0].program)))

    def _gather(self, node: Gather) -> list[Partition]:
        groups: dict[tuple[Dim, ...], list[Partition]] = {}
        for partition in self.cut(node.input):
            kept = tuple(dim for dim in partition.dims if dim.dimension in node.dimensions)
            groups.setdefault(kept, []).append(partition)
        return [Partition(self._one(members), dims) for dims, members in groups.items()]

    def _limit(self, node: Limit) -> Partition:
        """The first rows of every partition, then the first of those."""
        partitions = self.cut(node.input)
        if len(partitions) == 1:
            return Partition(node.with_inputs((partitions[0].program,)))
        firsts = [Partition(node.with_inputs((p.program,)), p.dims) for p in partitions]
        return Partition(node.with_inputs((concatenated(self._stage(firsts, "limit")),)))

    # ---- tasks

    def handed(
        self,
        partitions: Sequence[Partition],
        name: str,
        keep: Callable[[Plan], bool],
    ) -> list[Partition]:
        """The same partitions, as what one stage of tasks leaves behind, but those to be kept.

        Work that can be cut into pieces is shared out among all processors.
        """
        wanted = max(1, 2 * self._machine.cpus // max(1, len(partitions)))
        work: list[Partition] = []
        counts: list[int] = []
        for partition in partitions:
            if keep(partition.program):
                counts.append(0)
                continue
            spread = not self._machine.shared_memory or not has_no_function(partition.program)
            pieces = self.pieces(partition.program, wanted) if spread else [partition.program]
            work += [Partition(piece, partition.dims) for piece in pieces]
            counts.append(len(pieces))
        outputs = iter(self._stage(work, name) if work else [])
        return [
            Partition(concatenated([next(outputs) for _ in range(count)]), partition.dims)
            if count
            else partition
            for partition, count in zip(partitions, counts, strict=True)
        ]

    def _spread(self, program: Plan) -> Plan:
        """A program whose Python functions are done by tasks of their own, on pieces of it."""
        [done] = self.handed([Partition(program)], name_of(program), has_no_function)
        return done.program

    def _stage(
        self, partitions: Sequence[Partition], name: str, sink: Sink | None = None
    ) -> list[Plan]:
        """One task per partition; returns their first outputs."""
        tasks = self.tasks(partitions, name, [sink or ToParts()] * len(partitions))
        return [TaskOutput(task.key) for task in tasks]

    def tasks(
        self, partitions: Sequence[Partition], name: str, sinks: Sequence[Sink]
    ) -> list[Task]:
        """Adds a stage of tasks to the graph; equal ones are there once."""
        stage_idx = len(self.graph.stages)
        made: list[Task] = []
        for partition, sink in zip(partitions, sinks, strict=True):
            seed = len(made)
            resources = self._resources(partition.program, len(partitions))
            task = Task(partition.program, sink, stage_idx, name, partition.dims, resources, seed)
            known = self._tasks.setdefault(task.key, task)
            if known is task:
                self.graph.tasks.append(task)
            made.append(known)
        needed = sorted({self._tasks[key].stage_idx for task in made for key in task.needs})
        new = sum(task.stage_idx == stage_idx for task in made)
        size = sum(size_of(p.program) for p in partitions)
        self.graph.stages.append(Stage(stage_idx, name, new, tuple(needed), size or None))
        return made

    def _resources(self, program: Plan, num_tasks: int) -> Resources:
        """What the nodes ask for; a task that is alone gets a whole worker, others one CPU."""
        demands = [n.demand for n in walk(program) if isinstance(n, _DEMANDING)]
        asked = [demand.cpus for demand in demands if demand.cpus]
        memory = [demand.memory_bytes for demand in demands if demand.memory_bytes]
        has_python = any(isinstance(node, Function) for node in walk(program))
        alone = 1 if has_python or num_tasks > 1 else self._machine.worker_cpus
        return Resources(
            cpus=max(asked) if asked else alone,
            memory_bytes=max(memory) if memory else None,
            gpus=max((demand.gpus for demand in demands), default=0.0),
        )

    # ---- moving rows

    def _repartition(self, node: Repartition) -> list[Partition]:
        inputs = [p for source in node.sources for p in self.cut(source)]
        if not node.npartitions:
            if len(inputs) == 1:
                return inputs
            node = dataclasses.replace(node, npartitions=len(inputs))
        if node.nested:
            groups: dict[tuple[Dim, ...], list[Partition]] = {}
            for partition in inputs:
                groups.setdefault(partition.dims, []).append(partition)
            return [p for dims, group in groups.items() for p in self._split(node, group, dims)]
        return self._split(node, inputs, ())

    def _split(
        self, node: Repartition, inputs: list[Partition], outer: tuple[Dim, ...]
    ) -> list[Partition]:
        if any(dim.dimension == node.dimension for dim in outer):
            raise PlanError(
                f"repartition: there are partitions of dimension {node.dimension!r} already; "
                "a nested repartition needs a dimension= of its own"
            )
        move = {
            By.FILES: self._by_files,
            By.ROWS: self._by_rows,
            By.REPEAT: self._repeated,
            By.RANGE: self._by_range,
        }.get(node.by, self._by_content)
        programs = move(node, inputs)
        return [
            Partition(program, (*outer, Dim(node.dimension, i, node.npartitions)))
            for i, program in enumerate(programs)
        ]

    def _repeated(self, node: Repartition, inputs: list[Partition]) -> list[Plan]:
        program = self._one(inputs)
        if len(inputs) > 1 or not isinstance(program, Files | Memory | Parts):
            program = concatenated(self._stage([Partition(program)], "repeat"))
        return [program] * node.npartitions

    def _by_files(self, node: Repartition, inputs: list[Partition]) -> list[Plan]:
        """Whole files, where the rows still lie in files; else equal numbers of rows."""
        program = concatenated([p.program for p in inputs])
        files = base_files(program)
        if files is None:
            return self._by_rows(node, inputs)
        order = shuffled(files.files, node.seed) if node.shuffle_files else files.files
        groups = [order[share_of(len(order), node.npartitions, i)] for i in range(node.npartitions)]
        return [on_files(program, files, group) for group in groups]

    def _by_rows(self, node: Repartition, inputs: list[Partition]) -> list[Plan]:
        """Equal numbers of rows, in order."""
        program = concatenated([p.program for p in inputs])
        if isinstance(program, Files) and node.shuffle_files:
            program = dataclasses.replace(program, files=shuffled(program.files, node.seed))
        if isinstance(program, Memory):
            return table_slices(program, node.npartitions)
        if isinstance(program, Files) and all(f.num_rows is not None for f in program.files):
            return row_slices(program, node.npartitions)
        pieces = self.pieces(program, 2 * self._machine.cpus)
        outputs = concatenated(
            self._stage([Partition(p) for p in pieces], f"{name_of(program)} (rows)")
        )
        [task] = self.tasks(
            [Partition(outputs)], node.label or f"repartition({node.npartitions}, by_rows)",
            [ToRowRanges(node.npartitions)],
        )  # fmt: skip
        return [TaskOutput(task.key, i) for i in range(node.npartitions)]

    def _by_content(self, node: Repartition, inputs: list[Partition]) -> list[Plan]:
        keys = ", ".join(node.columns)
        name = node.label or f"repartition({node.npartitions}, {node.by.value}: {keys})"
        sink = ToSplit(
            node.npartitions, node.by, node.columns,
            keep_column=node.keep_column, seed=node.seed,
        )  # fmt: skip
        return self._exchange(self._producers(inputs), sink, name)

    def _by_range(self, node: Repartition, inputs: list[Partition]) -> list[Plan]:
        """A sample of the keys first, which decides where to cut."""
        if node.npartitions == 1:
            return [self._one(inputs)]
        producers = self._producers(inputs, hold=True)
        keys = ", ".join(f"({key.expression}) AS k{i}" for i, key in enumerate(node.order))
        samples = [
            Partition(
                Sql(
                    (p.program,),
                    f"SELECT {keys} FROM {{0}} USING SAMPLE reservoir({SAMPLE_ROWS} ROWS) "
                    f"REPEATABLE ({node.seed})",
                    label="sort",
                    from_rows=True,
                ),
                p.dims,
            )
            for p in producers
        ]
        sampled = concatenated(self._stage(samples, "sort: sample"))
        order = tuple(
            SortKey(f"k{i}", key.descending, key.nulls_first) for i, key in enumerate(node.order)
        )
        sink = ToSplit(
            node.npartitions, By.RANGE, order=node.order, boundaries=Sort(sampled, order),
            keep_column=node.keep_column,
        )  # fmt: skip
        return self._exchange(producers, sink, f"sort: range partition({node.npartitions})")

    def _producers(self, inputs: list[Partition], *, hold: bool = False) -> list[Partition]:
        """Pieces of the inputs that tasks can split at the same time.

        With ``hold`` they are read twice, so what is costly to compute is kept.
        """
        wanted = max(1, 2 * self._machine.cpus // max(1, len(inputs)))
        made: list[Partition] = []
        for partition in inputs:
            pieces = [Partition(p, partition.dims) for p in self.pieces(partition.program, wanted)]
            if hold and not all(is_cheap(piece.program) for piece in pieces):
                held = self._stage(pieces, name_of(partition.program))
                pieces = [Partition(plan, partition.dims) for plan in held]
            made += pieces
        return made

    def _exchange(self, producers: list[Partition], sink: ToSplit, name: str) -> list[Plan]:
        tasks = self.tasks(producers, name, [sink] * len(producers))
        return [
            concatenated([TaskOutput(task.key, i) for task in tasks])
            for i in range(sink.npartitions)
        ]

    def pieces(self, program: Plan, wanted: int, share: int = 1) -> list[Plan]:
        """Programs whose rows one after the other are the program's, at most ``wanted``.

        None is much smaller than the ``share``-th part of what SQL is worth a task for.
        """

        def over(source: Plan, share: int = share) -> list[Plan]:
            return [
                program.with_inputs((piece, *program.inputs[1:]))
                for piece in self.pieces(source, wanted, share)
            ]

        match program:
            case Concat():
                return grouped(program.sources, wanted)
            case Files():
                return file_pieces(program, wanted, PIECE_BYTES // share)
            case Memory() if program.table.num_rows > PIECE_ROWS // share:
                count = -(-program.table.num_rows // (PIECE_ROWS // share))
                return table_slices(program, min(wanted, count))
            case Project() if is_rowwise(program.select):
                return over(program.input)
            case Filter():
                return over(program.input)
            case Join(broadcast=True):
                return over(program.left)
            case Sql() if program.splits:
                return over(program.sources[0])
            case Function() if program.shape in ROWWISE:
                return over(program.sources[0], FUNCTION_SHARE)
        return [program]


_DEMANDING = Project | Filter | Sql | Function | Sort


def cut(plan: Plan, machine: Machine, *, to_driver: bool = False) -> Graph:
    """The graph of tasks that computes a plan.

    Args:
        plan: optimised and distributed.
        machine: where it will run.
        to_driver: whether the rows are wanted in the driver's memory; then a plan of one partition
            without Python functions leaves no file behind.
    """
    cutter = Cutter(machine)
    partitions = cutter.cut(plan)
    name = name_of(plan)
    if to_driver and len(partitions) == 1 and machine.shared_memory:
        program = partitions[0].program
        if not is_at_rest(program) and has_no_function(program):
            [task] = cutter.tasks(partitions, name, [ToDriver()])
            cutter.graph.outputs = [Partition(TaskOutput(task.key))]
            return cutter.graph
    cutter.graph.outputs = cutter.handed(partitions, name, is_at_rest)
    return cutter.graph
