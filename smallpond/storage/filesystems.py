"""The file systems behind addresses."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smallpond.errors import PlanError

# Beside what fsspec itself says about a driver that is not there.
_PACKAGES = {
    "s3": "openweek[s3]",
    "s3a": "openweek[s3]",
    "gs": "openweek[gcs]",
    "gcs": "openweek[gcs]",
    "hf": "openweek[hf]",
    "3fs": "openweek[threefs]",
}
_registering = threading.Lock()


def is_remote(url: str) -> bool:
    """Whether an address names a file system other than this machine's."""
    return "://" in url and not url.startswith("file://")


def is_hidden(name: str) -> bool:
    """Whether the last part of a path marks what is nobody's data."""
    return name.startswith(("_", ".")) and "=" not in name


def local_path(path: str) -> Path:
    """A local path made absolute, with ``~`` and ``file://`` resolved."""
    return Path(os.path.expanduser(path.removeprefix("file://"))).absolute()  # noqa: PTH111 (a user who is not there is no error yet)


def filesystem_of(url: str, storage_options: Mapping[str, Any]) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Equal arguments give one object in a process, and another one after a fork: fsspec sees to it.

    Raises:
        PlanError: fsspec does not know the protocol, lacks its driver, or refuses the options.
    """
    if not is_remote(url):
        return _driver("file")(), str(local_path(url))
    protocol = url.partition("://")[0]
    driver = _driver(protocol)
    try:
        # What an address says of host, user or account; an option overrules it.
        said = driver._get_kwargs_from_urls(url)  # noqa: SLF001 (fsspec's own way)
        filesystem = driver(**{**said, **storage_options})
        path = str(driver._strip_protocol(url))  # noqa: SLF001
    except (TypeError, ValueError) as error:
        raise PlanError(f"{url} cannot be opened with these storage_options: {error}") from error
    return filesystem, path


def _driver(protocol: str) -> Any:
    import fsspec  # noqa: PLC0415

    package = _PACKAGES.get(protocol)
    remedy = f" (pip install '{package}')" if package else ""
    try:
        return fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise PlanError(f"{protocol}:// needs another package: {error}{remedy}") from error
    except ValueError as error:
        raise PlanError(f"{protocol}:// is no storage that fsspec knows{remedy}") from error


def address_of(name: str, url: str, path: str) -> str:
    """The address of another file in a file system of which an address and its path are known."""
    if not is_remote(url) or "://" in name:
        return name
    known, path = url.rstrip("/"), path.rstrip("/")
    if known.endswith(path) and "://" in known and (path or name.startswith("/")):
        return known.removesuffix(path) + name
    return f"{url.partition('://')[0]}://{name.lstrip('/')}"


def configure(url: str, storage_options: Mapping[str, Any]) -> None:
    """Has this process reach an address with these options, whoever opens it."""
    if is_remote(url) and storage_options:
        import fsspec.config  # noqa: PLC0415

        fsspec.config.conf.setdefault(url.partition("://")[0], {}).update(storage_options)


def remove_folder(url: str, storage_options: Mapping[str, Any]) -> None:
    """Removes a folder and all below it, if it is there and may be removed."""
    if not is_remote(url):
        shutil.rmtree(local_path(url), ignore_errors=True)
        return
    filesystem, path = filesystem_of(url, storage_options)
    # A driver's own errors may be anything, and must not hide why there is something to remove.
    with contextlib.suppress(Exception):
        filesystem.invalidate_cache()
        if filesystem.exists(path):
            filesystem.rm(path, recursive=True)


def register_with_duckdb(con: Any, urls: Iterable[str], storage_options: Mapping[str, Any]) -> None:
    """Lets a DuckDB instance read and write these addresses through fsspec.

    DuckDB knows one file system for a protocol, the first that it was given.

    Raises:
        PlanError: two hosts of one protocol at once.
    """
    hosts = {"/".join(url.split("/", 3)[:3]) for url in urls if is_remote(url)}
    found: dict[str, tuple[str, Any]] = {}
    for host in sorted(hosts):
        filesystem, _ = filesystem_of(host, storage_options)
        protocols = filesystem.protocol
        # DuckDB calls a file system that has several protocols by the first of them.
        protocol = protocols if isinstance(protocols, str) else protocols[0]
        first, known = found.setdefault(protocol, (host, filesystem))
        if known is not filesystem:
            raise PlanError(f"one query cannot read from both {first} and {host}")
        with _registering:
            if not con.filesystem_is_registered(protocol):
                _with_modified(filesystem)
                con.register_filesystem(filesystem)


def _with_modified(filesystem: Any) -> None:
    """DuckDB asks when a file was changed, which some drivers, that of http:// too, cannot say."""
    from fsspec import AbstractFileSystem  # noqa: PLC0415

    if type(filesystem).modified is AbstractFileSystem.modified:
        filesystem.modified = lambda _path: datetime.fromtimestamp(0, UTC)
