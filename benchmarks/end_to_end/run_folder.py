"""The folder in which a run keeps what its stages hand to one another.

Every file appears whole or not at all. A stage of a later run reads what an earlier run left.
"""

import errno
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.whole_file import whole_file


class RunError(Exception):
    """Ends a run for a reason the user can repair: one sentence, what was wrong and what to do."""


class RunFolder:
    """Named arrays and JSON documents in one folder.

    Raises:
        RunError: the folder cannot be made or written to, or its disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"--out: cannot make the folder {path}: {error.strerror} (name another folder)"
            ) from error
        if not os.access(path, os.W_OK | os.X_OK):
            raise RunError(f"--out: the folder {path} is not writable (name another folder)")

    def check_space(self, num_bytes: int) -> None:
        """Raises RunError unless the disk has this many bytes left."""
        free = shutil.disk_usage(self.path).free
        if free < num_bytes:
            raise RunError(
                f"--out: {self.path} needs {num_bytes / 1e6:.0f} MB, its disk has {free / 1e6:.0f} "
                "MB left (free some space or name a folder on another disk)"
            )

    def save_arrays(self, name: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Path:
        """Writes ``name``.npz with these arrays, uncompressed."""
        self.check_space(sum(array.nbytes for array in arrays.values()) + 65536)
        return self.write(f"{name}.npz", lambda file: np.savez(file, allow_pickle=False, **arrays))

    def load_arrays(self, name: str, made_by: str) -> dict[str, np.ndarray[Any, Any]]:
        """Reads what ``save_arrays`` wrote; ``made_by`` is the stage that writes it."""
        path = self.existing(f"{name}.npz", made_by)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise self.damaged(path, made_by) from error

    def save_json(self, name: str, document: Any) -> Path:
        """Writes ``name``.json."""
        text = json.dumps(document) + "\n"
        return self.write(f"{name}.json", lambda file: file.write(text.encode()))

    def load_json(self, name: str, made_by: str) -> Any:
        """Reads what ``save_json`` wrote; ``made_by`` is the stage that writes it."""
        path = self.existing(f"{name}.json", made_by)
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise self.damaged(path, made_by) from error

    def write(self, name: str, fill: Callable[[IO[bytes]], object]) -> Path:
        """Lets ``fill`` write a file that appears under its name only once it is complete."""
        path = self.path / name
        try:
            with whole_file(path) as file:
                fill(file)
        except OSError as error:
            reason = "its disk is full" if error.errno == errno.ENOSPC else error.strerror
            raise RunError(
                f"--out: cannot write {path}: {reason} (free some space or name another folder)"
            ) from error
        return path

    def existing(self, name: str, made_by: str) -> Path:
        """The path of what the stage ``made_by`` writes under this name."""
        path = self.path / name
        if not path.exists():
            raise RunError(
                f"--stages: {path} is not there, the stage {made_by} writes it "
                f"(add {made_by} to --stages, or name the folder of an earlier run with --out)"
            )
        return path

    def damaged(self, path: Path, made_by: str) -> RunError:
        """What to raise when a file cannot be understood."""
        return RunError(
            f"--out: {path} is damaged (run the stage {made_by} again, which writes it anew)"
        )
