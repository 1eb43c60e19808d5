"""ENUM columns on their way through hand-off files, where they are texts that know their type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from smallpond.sql import quote

_TYPE = b"smallpond:type"


def described(schema: pa.Schema, types: Iterable[object]) -> pa.Schema:
    """The schema of a result, with the SQL types of columns that are or hold an ENUM."""
    return pa.schema(
        [
            field.with_metadata({_TYPE: str(kind).encode()}) if "ENUM(" in str(kind) else field
            for field, kind in zip(schema, types, strict=True)
        ],
        metadata=schema.metadata,
    )


def agreed(tables: Sequence[pa.Table]) -> pa.Schema:
    """The first table's schema; of types, what all tables say alike."""
    first = tables[0].schema
    for i, field in enumerate(first):
        said = {_type_of(table.schema, field.name) for table in tables}
        if len(said) > 1:
            first = first.set(i, field.remove_metadata())
    return first


def restored(schema: pa.Schema) -> str:
    """The select list that makes columns again what they were."""
    casts = ", ".join(
        f"CAST({quote(field.name)} AS {kind.decode()}) AS {quote(field.name)}"
        for field in schema
        if (kind := _type_of(schema, field.name)) is not None
    )
    return f"* REPLACE ({casts})" if casts else "*"


def _type_of(schema: pa.Schema, name: str) -> bytes | None:
    places = schema.get_all_field_indices(name)
    metadata = schema.field(places[0]).metadata if len(places) == 1 else None
    kind: bytes | None = metadata.get(_TYPE) if metadata else None
    return kind
