"""Files wherever fsspec reaches: found to be read, and written as whole folders or not at all.

Names that begin with ``_`` or ``.`` are nobody's data, except folders ``_column=value``.
"""

from smallpond.storage.changes import check_unchanged
from smallpond.storage.filesystems import (
    configure,
    filesystem_of,
    is_remote,
    local_path,
    register_with_duckdb,
    remove_folder,
)
from smallpond.storage.finding import AnyPath, FileInfo, Paths, path_of, resolve
from smallpond.storage.writing import MODES, DirectoryWriter

__all__ = [
    "MODES",
    "AnyPath",
    "DirectoryWriter",
    "FileInfo",
    "Paths",
    "check_unchanged",
    "configure",
    "filesystem_of",
    "is_remote",
    "local_path",
    "path_of",
    "register_with_duckdb",
    "remove_folder",
    "resolve",
]
