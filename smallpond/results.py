"""What finished tasks left behind, remembered in memory and in manifests beside the files."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Container
from pathlib import PurePosixPath
from typing import Any

from smallpond.errors import CorruptedDataError
from smallpond.events import Metrics
from smallpond.handoff import part_from_dict, part_to_dict
from smallpond.manifest import load_manifest, save_manifest
from smallpond.places import remove
from smallpond.task import Result, Task, ToDriver

_log = logging.getLogger("smallpond")


class Results:
    """Results by task key.

    A manifest is written when a task has finished; it names the files that count. A session that
    takes up an earlier job finds those of the earlier one.
    """

    def __init__(self, root: str, *, resumed: bool) -> None:
        """Looks into ``root`` only if ``resumed``: a new job's folder is empty."""
        self._root = root
        self._resumed = resumed
        self._known: dict[str, Result] = {}
        self._sizes: dict[str, int] = {}

    def find(self, key: str) -> Result | None:
        """The result of a task, if it has been finished."""
        if key in self._known or not self._resumed:
            return self._known.get(key)
        try:
            manifest = load_manifest(self._url(key))
        except CorruptedDataError as error:
            _log.warning("%s; computing it again", error)
            self.forget(key)
            return None
        if manifest is not None:
            self._known[key] = _from_dict(manifest)
        return self._known.get(key)

    def keep(self, task: Task, result: Result) -> Result:
        """Remembers a result, beyond the life of this process if it lies in files."""
        if isinstance(task.sink, ToDriver):
            return result
        save_manifest(self._url(task.key), _to_dict(result))
        self._known[task.key] = result
        files = {part.url: part.file_bytes for output in result.outputs for part in output}
        self._sizes[task.key] = sum(files.values())
        return result

    @property
    def num_bytes(self) -> int:
        """The size of all files that results lie in."""
        return sum(self._sizes.values())

    def release(self, kept: Container[str]) -> None:
        """Removes results and their files, but those of some tasks."""
        for key in [key for key in self._known if key not in kept]:
            for output in self._known[key].outputs:
                for part in output:
                    remove(part.url)
            self.forget(key)

    def forget(self, key: str) -> None:
        """The task is to be run again."""
        self._known.pop(key, None)
        self._sizes.pop(key, None)
        remove(self._url(key))

    @staticmethod
    def owner(url: str) -> str:
        """The key of the task that wrote a hand-off file."""
        return PurePosixPath(url).name.partition("-")[0]

    def _url(self, key: str) -> str:
        return f"{self._root}/{key}.json"


def _to_dict(result: Result) -> dict[str, Any]:
    outputs = [[part_to_dict(part) for part in output] for output in result.outputs]
    return {"outputs": outputs, "metrics": dataclasses.asdict(result.metrics)}


def _from_dict(value: dict[str, Any]) -> Result:
    outputs = tuple(tuple(part_from_dict(part) for part in output) for output in value["outputs"])
    return Result(outputs=outputs, metrics=Metrics(**value["metrics"]))
