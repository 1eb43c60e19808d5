"""Tables that are more than a folder of files: Delta and Iceberg.

Their own libraries say which files make a version of the table; DuckDB then reads these files as it
reads any others, on every worker. DuckDB's extensions for these formats would have to be downloaded
when first used, and could not be cut into pieces for several workers.
"""

from __future__ import annotations

from typing import Any

from smallpond.errors import MissingInputError, PlanError
from smallpond.plan import Files, FileSlice, Format

_Storage = tuple[tuple[str, Any], ...]


def delta_files(path: str, version: int | None, storage: _Storage) -> Files:
    """The Parquet files of a version of a Delta table.

    Raises:
        MissingInputError: there is no such table or version.
        PlanError: the table uses a feature that plain Parquet files do not show.
    """
    try:
        from deltalake import DeltaTable  # noqa: PLC0415
        from deltalake.exceptions import DeltaError, TableNotFoundError  # noqa: PLC0415
    except ImportError as error:
        raise PlanError("read_delta: needs deltalake (pip install 'openweek[tables]')") from error
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")
    options = _options(path, storage, names)
    if options.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        options["AWS_ALLOW_HTTP"] = "true"
    try:
        table = DeltaTable(path, version=version, storage_options=options or None)
    except (TableNotFoundError, DeltaError) as error:
        raise MissingInputError(f"read_delta: no Delta table at {path}: {error}") from error
    features = set(table.protocol().reader_features or ())
    unseen = features & {"deletionVectors", "columnMapping"}
    if unseen:
        raise PlanError(
            f"read_delta: {path} uses {', '.join(sorted(unseen))}, which its Parquet files alone "
            "do not show (rewrite the table without)"
        )
    import pyarrow as pa  # noqa: PLC0415

    actions = pa.table(table.get_add_actions(flatten=True))
    rows = actions.select(["path", "size_bytes", "num_records"]).to_pylist()
    root = table.table_uri.removeprefix("file://").rstrip("/")
    files = [
        # Of no version: what a table has written it never changes.
        FileSlice(f"{root}/{row['path']}", row["size_bytes"], num_rows=row["num_records"])
        for row in rows
    ]
    partitioned = bool(table.metadata().partition_columns)
    return _files("read_delta", path, files, storage, hive=partitioned)


def iceberg_files(path: str, snapshot_id: int | None, storage: _Storage) -> Files:
    """The Parquet files of a snapshot of an Iceberg table.

    Args:
        path: of a metadata file, or of the table's folder, whose newest metadata file counts.
        snapshot_id: of the snapshot; the current one by default.
        storage: options of the file system.

    Raises:
        MissingInputError: there is no such table.
        PlanError: rows were deleted without rewriting the files.
    """
    try:
        from pyiceberg.table import StaticTable  # noqa: PLC0415
    except ImportError as error:
        raise PlanError("read_iceberg: needs pyiceberg (pip install 'openweek[tables]')") from error
    metadata = path if path.endswith(".json") else _newest_metadata(path, storage)
    names = ("s3.access-key-id", "s3.secret-access-key", "s3.endpoint", "s3.region")
    try:
        table = StaticTable.from_metadata(metadata, _options(path, storage, names))
        tasks = list(table.scan(snapshot_id=snapshot_id).plan_files())
    except FileNotFoundError as error:
        raise MissingInputError(f"read_iceberg: no metadata file {metadata}: {error}") from error
    except ValueError as error:
        raise PlanError(f"read_iceberg: {metadata}: {error}") from error
    if any(task.delete_files for task in tasks):
        raise PlanError(
            f"read_iceberg: {path} has delete files, which its data files alone do not show "
            "(rewrite the data files first)"
        )
    files = [
        FileSlice(
            task.file.file_path.removeprefix("file://"),
            task.file.file_size_in_bytes,
            num_rows=task.file.record_count,
        )
        for task in tasks
    ]
    return _files("read_iceberg", path, files, storage, hive=False)


def _options(path: str, storage: _Storage, names: tuple[str, str, str, str]) -> dict[str, str]:
    """Options for S3 under other names: key, secret, endpoint, region; for others as they are."""
    given = dict(storage)
    if not path.startswith(("s3://", "s3a://")):
        return {name: str(value) for name, value in storage if "://" in path}
    client = given.get("client_kwargs") or {}
    values = (
        given.get("key"),
        given.get("secret"),
        given.get("endpoint_url") or client.get("endpoint_url"),
        client.get("region_name"),
    )
    return {name: str(value) for name, value in zip(names, values, strict=True) if value}


def _files(
    operation: str, path: str, files: list[FileSlice], storage: _Storage, *, hive: bool
) -> Files:
    if not files:
        raise MissingInputError(f"{operation}: the table at {path} holds no files")
    # Older files may lack columns that were added later.
    options = {"union_by_name": "true"} | ({"hive_partitioning": "true"} if hive else {})
    return Files(tuple(files), Format.PARQUET, options=tuple(options.items()), storage=storage)


def _newest_metadata(path: str, storage: _Storage) -> str:
    from smallpond.storage import filesystem_of  # noqa: PLC0415

    filesystem, folder = filesystem_of(path, dict(storage))
    try:
        names = filesystem.ls(f"{folder}/metadata", detail=False)
    except FileNotFoundError:
        names = []
    found = sorted(name for name in names if name.endswith(".metadata.json"))
    if not found:
        raise MissingInputError(f"read_iceberg: no metadata file in {path}/metadata")
    newest = str(found[-1])
    scheme = path.partition("://")[0]
    return f"{scheme}://{newest}" if "://" in path else newest
