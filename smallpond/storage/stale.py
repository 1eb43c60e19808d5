"""What writers that were killed have left, and how one knows that they are dead.

A writer locks its staging folder, which the kernel undoes when the process ends, however it ends.
Since a network file system may keep locks to one machine, the folder also says on which machine,
since its last start, the lock is to be believed. What cannot be judged so is left where it is.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

_OWNER = ".writer"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def claim(staging: Path) -> int | None:
    """Makes a staging folder that lives as long as this process, or until it is removed.

    Returns:
        What to close in the end; None where others will not be able to tell whether we live.
    """
    staging.mkdir(parents=True)
    machine = _machine()
    descriptor = _locked(staging) if machine else None
    if descriptor is not None and machine:
        # Only now: a folder without it is never taken for a dead writer's.
        (staging / _OWNER).write_text(machine)
    return descriptor


def left_beside(path: Path) -> list[Path]:
    """Staging folders for a folder, of writers that are dead or alive."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{32}}")
    try:
        return [entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name)]
    except OSError:
        return []


def remove_dead(path: Path, staging: Path) -> None:
    """Removes what a writer to a folder has left, if it is dead.

    If it died just when it had moved the old folder away, that one comes back.
    """
    try:
        owner = (staging / _OWNER).read_text()
    except OSError:
        return
    if not owner or owner != _machine():
        return
    descriptor = _locked(staging)
    if descriptor is None:
        return
    try:
        old = staging.with_name(f"{staging.name}.old")
        with suppress(OSError):
            if old.is_dir() and not path.exists():
                old.rename(path)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        if not old.exists():
            shutil.rmtree(staging, ignore_errors=True)
    finally:
        os.close(descriptor)


def _machine() -> str:
    with suppress(OSError):
        return _BOOT.read_text().strip()
    return ""


def _locked(folder: Path) -> int | None:
    try:
        import fcntl  # noqa: PLC0415 (not on every system)
    except ImportError:
        return None
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
        else:
            return descriptor
    return None
