"""Nodes at the end of a plan, and what becomes of finished files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from smallpond.errors import PlanError, SmallpondError
from smallpond.logical.base_node import Context, Node
from smallpond.logical.table_nodes import united
from smallpond.plan import Plan
from smallpond.storage import DirectoryWriter, filesystem_of

if TYPE_CHECKING:
    from smallpond.execution.task import RuntimeContext

SinkType = Literal["link", "copy", "link_or_copy", "manifest"]
MANIFEST = ".MANIFEST.txt"


class DataSinkNode(Node):
    """Puts the files of all inputs into a folder.

    Rows that lie in no files of their own are written as Parquet. The folder must be new, empty,
    or an earlier result, which is replaced; it appears when all files are there.

    Args:
        output_path: the folder.
        type: "link" for hard links, "copy", "link_or_copy" to copy what cannot be linked, or
            "manifest" for a list of the files.
        manifest_only: the same as "manifest".
        is_final_node: accepted for programs that set it.
    """

    at_rest = True

    def __init__(
        self,
        ctx: Context,
        input_deps: Sequence[Node],
        output_path: str,
        type: SinkType = "link",  # noqa: A002 (the original's)
        manifest_only: bool = False,
        is_final_node: bool = False,
    ) -> None:
        super().__init__(ctx, input_deps, output_path=output_path)
        if type not in ("link", "copy", "link_or_copy", "manifest"):
            raise PlanError(
                f"{self.label}: type must be 'link', 'copy', 'link_or_copy' or 'manifest', got "
                f"{type!r}"
            )
        self.type: SinkType = "manifest" if manifest_only else type
        self.is_final_node = is_final_node

    def _dims(self) -> dict[str, int]:
        first, *others = [dep.dims for dep in self.input_deps]
        return first if all(dims == first for dims in others) else {}

    @property
    def described(self) -> str:
        return f"{self.type} to {self.output_path}"

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:  # noqa: ARG002
        return united(self, inputs)


class RootNode(Node):
    """All results of a plan."""

    at_rest = True

    def __init__(self, ctx: Context, input_deps: Sequence[Node]) -> None:
        super().__init__(ctx, input_deps)

    def _dims(self) -> dict[str, int]:
        return {}

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:  # noqa: ARG002
        raise PlanError(f"{self.label}: nothing can read the root of a plan")


# ---- files


def deliver(
    operation: str, files: Sequence[str], folder: str, how: SinkType, base: str, own: str
) -> list[str]:
    """Puts files into a folder, all of them or none, and a list of them beside them.

    Args:
        operation: for messages.
        files: finished files.
        folder: to put them into.
        how: what to do with them.
        base: begins the names of files that were written for this.
        own: the folder of such files.

    Returns:
        Where the files are now.
    """
    mode = "overwrite" if _may_go(folder) else "error"
    names = _names(files, base, own)
    with DirectoryWriter(folder, mode) as writer:
        staged = [f"{writer.staging}/{i}" for i in range(len(files))]
        if how == "manifest":
            writer.commit([])
            finished = list(files)
        else:
            for source, target in zip(files, staged, strict=True):
                _place(operation, source, target, how)
            finished = writer.commit(staged, names)
    filesystem, path = filesystem_of(f"{folder}/{MANIFEST}", {})
    with filesystem.open(path, "w") as file:
        file.write("".join(f"{name}\n" for name in finished))
    return finished


def _may_go(folder: str) -> bool:
    """Whether a folder is an earlier result, or empty."""
    filesystem, path = filesystem_of(folder, {})
    if not filesystem.exists(path):
        return False
    return filesystem.exists(f"{path}/{MANIFEST}") or not filesystem.ls(path, detail=False)


def _names(files: Sequence[str], base: str, own: str) -> list[str]:
    """A name for each file, like its own where it has a meaning, and no name twice."""
    made: dict[str, None] = {}
    for i, file in enumerate(files):
        name = _name(file, f"{base}-{i:05}", own)
        if name in made:
            path = PurePosixPath(name)
            name = str(path.with_name(f"{path.stem}-{i}{path.suffix}"))
        made[name] = None
    return list(made)


def _name(file: str, numbered: str, own: str) -> str:
    if not file.startswith(f"{own}/"):
        return PurePosixPath(file).name
    # Below the folder of the attempt that wrote it; or the attempt's only file.
    inner = PurePosixPath(file).relative_to(own).parts[1:]
    if not inner:
        return f"{numbered}{PurePosixPath(file).suffix}"
    if any("=" in part for part in inner):
        return str(PurePosixPath(*inner[:-1], f"{numbered}{PurePosixPath(file).suffix}"))
    return str(PurePosixPath(*inner))


def _place(operation: str, source: str, target: str, how: SinkType) -> None:
    local = "://" not in source and "://" not in target
    if local:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
    if how != "copy" and local:
        try:
            os.link(source, target)
        except OSError as error:
            if how == "link":
                raise SmallpondError(
                    f"{operation}: {source} cannot be linked: {error} (use type='link_or_copy')"
                ) from error
        else:
            return
    elif how == "link":
        raise SmallpondError(
            f"{operation}: only local files can be linked, not {source} to {target}"
        )
    if local:
        shutil.copyfile(source, target)
        return
    origin, origin_path = filesystem_of(source, {})
    goal, goal_path = filesystem_of(target, {})
    goal.makedirs(goal_path.rpartition("/")[0], exist_ok=True)
    with origin.open(origin_path, "rb") as read, goal.open(goal_path, "wb") as written:
        shutil.copyfileobj(read, written, 8 << 20)
