"""Configurations that were measured to be best on a device, kept in the cache folder."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import torch

from csrc import cache
from deepgemm.plan import Config, FewTokens, Problem, Tiles

_FILE = "config.json"
_KINDS: dict[str, type[Tiles | FewTokens]] = {"tiles": Tiles, "few tokens": FewTokens}


def tuned(problem: Problem, device: torch.device) -> Config | None:
    """Returns what `remember` was last given for this problem on such a device, if anything."""
    return _tuned(problem, device) if device.type == "cuda" else None


def remember(problem: Problem, device_name: str, config: Config) -> None:
    """Keeps a configuration for this and later processes.

    Raises:
        csrc.cache.CacheError: The cache folder cannot be written.
    """
    kind = next(name for name, made in _KINDS.items() if isinstance(config, made))

    def make(folder: Path) -> None:
        fields = {"kind": kind, **dataclasses.asdict(config)}
        (folder / _FILE).write_text(json.dumps(fields), encoding="utf-8")

    key = _key(problem, device_name)
    shutil.rmtree(cache.folder() / "tuned" / key, ignore_errors=True)
    cache.get("tuned", key, make)
    _tuned.cache_clear()


def recall(problem: Problem, device_name: str) -> Config | None:
    """Returns what is kept for this problem; a file that nobody could have written is as none."""
    path = cache.folder() / "tuned" / _key(problem, device_name) / _FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return _KINDS[fields.pop("kind")](**fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@functools.lru_cache(maxsize=4096)
def _tuned(problem: Problem, device: torch.device) -> Config | None:
    return recall(problem, torch.cuda.get_device_name(device))


def _key(problem: Problem, device_name: str) -> str:
    return cache.key_of([device_name, json.dumps(dataclasses.asdict(problem), sort_keys=True)])
