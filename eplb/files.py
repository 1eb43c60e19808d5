"""Loads and plans as files: whole ones are written, and whatever is read is checked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from eplb.checks import checked_loads
from eplb.plan import EMPTY, Floats, Plan
from eplb.topology import Topology

_VERSION = 1
_TABLES = ("loads", "slots", "shares", "lower_bound", "num_moved")


def read_loads(path: str | Path) -> Floats:
    """Reads recorded loads.

    Args:
        path: a `.npy` file, or a `.json` file with nested lists, of [num_layers, num_experts] or
            [num_iterations, num_layers, num_experts] integers or floats.

    Returns:
        [num_iterations, num_layers, num_experts] float64; one iteration if the file has no axis
        for them.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else. Python objects in a `.npy` are never loaded.
    """
    path = Path(path)
    readers = {".npy": _read_npy, ".json": _read_json_array}
    if path.suffix not in readers:
        raise ValueError(f"read_loads: path must end in {' or '.join(readers)}, got {path}")
    try:
        return checked_loads("read_loads", readers[path.suffix](path), str(path))
    except TypeError as error:  # here the type is the file's content, so it is a wrong value
        raise ValueError(str(error)) from None


def write_loads(path: str | Path, loads: NDArray[np.generic]) -> None:
    """Writes loads for `read_loads`, the file whole or not at all.

    Args:
        path: ends in `.npy` or `.json`.
        loads: [num_iterations, num_layers, num_experts] or [num_layers, num_experts].

    Raises:
        OSError: the file cannot be written.
        TypeError: `loads` holds no numbers.
        ValueError: another ending, or loads that `read_loads` would refuse.
    """
    path = Path(path)
    checked_loads("write_loads", loads)
    if path.suffix not in {".npy", ".json"}:
        raise ValueError(f"write_loads: path must end in .npy or .json, got {path}")
    with whole_file(path) as file:
        if path.suffix == ".npy":
            np.save(file, loads, allow_pickle=False)
        else:
            file.write(json.dumps(loads.tolist()).encode())


def write_plan(path: str | Path, plan: Plan) -> None:
    """Writes a plan as JSON for `read_plan`, the file whole or not at all.

    Raises:
        OSError: the file cannot be written.
        ValueError: the plan has no layers.
    """
    if not plan.num_layers:
        raise ValueError("write_plan: plan must have a layer, got none")
    tables = {name: getattr(plan, name).tolist() for name in _TABLES}
    topology = asdict(plan.topology)
    content = {"eplb_plan": _VERSION, "policy": plan.policy, "topology": topology, **tables}
    with whole_file(Path(path)) as file:
        file.write(json.dumps(content).encode())


def read_plan(path: str | Path) -> Plan:
    """Reads a plan that `write_plan` wrote, and checks that it is one.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no plan, one of another version, or one that contradicts itself.
    """
    content = _read_json(Path(path))
    wrong = f"read_plan: {path} must"
    if not isinstance(content, dict) or "eplb_plan" not in content:
        raise ValueError(f"{wrong} hold a plan as write_plan writes it")
    if content["eplb_plan"] != _VERSION:
        raise ValueError(f"{wrong} have version {_VERSION}, got {content['eplb_plan']!r}")
    if content.get("policy") not in ("hierarchical", "global"):
        raise ValueError(f"{wrong} have policy hierarchical or global")
    try:
        topology = _topology(content["topology"])
        tables = {name: np.array(content[name]) for name in _TABLES}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{wrong} hold a whole plan: {error}") from None
    integers, floats = ("slots", "num_moved"), ("loads", "shares", "lower_bound")
    if any(tables[name].dtype.kind not in "if" for name in floats) or any(
        tables[name].dtype.kind != "i" and tables[name].size for name in integers
    ):
        raise ValueError(f"{wrong} hold numbers in {', '.join(_TABLES)}")
    tables |= {name: tables[name].astype(np.int64) for name in integers}
    tables |= {name: tables[name].astype(np.float64) for name in floats}
    plan = Plan(topology, content["policy"], **tables)
    _check_plan(wrong, plan)
    return plan


def _check_plan(wrong: str, plan: Plan) -> None:
    if plan.loads.ndim != 3:
        raise ValueError(f"{wrong} have loads [num_windows, num_layers, num_experts]")
    num_layers, num_experts = plan.loads.shape[1:]
    shapes = {
        "slots": (num_layers, plan.topology.num_slots),
        "shares": (num_layers, plan.topology.num_slots),
        "lower_bound": (num_layers,),
        "num_moved": (num_layers,),
    }
    for name, shape in shapes.items():
        actual = getattr(plan, name).shape
        if actual != shape:
            raise ValueError(f"{wrong} have {name} of shape {list(shape)}, got {list(actual)}")
    try:
        checked_loads("read_plan", plan.loads)
        checked_loads("read_plan", np.stack([plan.lower_bound, plan.num_moved]), "bound or moves")
    except ValueError as error:
        raise ValueError(f"{wrong} hold a plan: {error}") from None
    if ((plan.slots < EMPTY) | (plan.slots >= num_experts)).any():
        raise ValueError(f"{wrong} have experts from 0 to {num_experts - 1} in slots, or {EMPTY}")
    if not ((plan.shares >= 0) & (plan.shares <= 1)).all():
        raise ValueError(f"{wrong} have shares from 0 to 1")
    if not plan.counts.all():
        layer, expert = (int(index) for index in np.argwhere(plan.counts == 0)[0])
        raise ValueError(
            f"{wrong} have a replica of every expert, none of {expert} in layer {layer}"
        )


def _topology(content: Any) -> Topology:
    """ValueError, TypeError or KeyError if it is none."""
    slots, node_of, num_groups = (content[name] for name in ("slots", "node_of", "num_groups"))
    for number in (*slots, *node_of, num_groups):
        if type(number) is not int or number > 2**31:
            raise ValueError(f"topology must hold integers, got {number!r}")
    return Topology(tuple(slots), tuple(node_of), num_groups)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Yields a file that takes its place under `path` when the body ends without an exception.

    A reader never sees half of it, and after a failure the old file is still there.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _read_npy(path: Path) -> NDArray[np.generic]:
    try:
        # Mapped: a header that promises more than the file holds then reserves no memory, and
        # Python objects are refused.
        return np.array(np.lib.format.open_memmap(path, mode="r"))
    except (ValueError, EOFError, OverflowError, SyntaxError) as error:
        first_line = str(error).partition("\n")[0]
        raise ValueError(f"read_loads: {path} must be an array of numbers: {first_line}") from None


def _read_json_array(path: Path) -> NDArray[np.generic]:
    content = _read_json(path)
    try:
        return np.array(content)
    except (ValueError, OverflowError):
        raise ValueError(
            f"read_loads: {path} must hold nested lists of equal lengths, "
            "[num_layers][num_experts] or [num_iterations][num_layers][num_experts]"
        ) from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError(f"{path} must hold JSON: it is nested too deeply") from None
    except ValueError as error:  # of the decoding of text, too
        raise ValueError(f"{path} must hold JSON: {error}") from None
