"""Arrow data with plain values in the place of dictionaries, at any depth."""

from __future__ import annotations

import pyarrow as pa

from smallpond.buffers import union_places


def schema_without_dictionaries(schema: pa.Schema) -> pa.Schema:
    """The same columns, with the types of the dictionaries' values."""
    return pa.schema([_plain_field(field) for field in schema], metadata=schema.metadata)


def without_dictionaries(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch in its schema without dictionaries."""
    if batch.schema.equals(schema):
        return batch
    columns = [
        _plain_array(column, field.type)
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _plain_field(field: pa.Field) -> pa.Field:
    plain = _plain_type(field.type)
    return field if plain is field.type else field.with_type(plain)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type itself where it has no dictionary."""
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return kind
    old = [kind.field(i) for i in range(kind.num_fields)]
    new = [_plain_field(field) for field in old]
    if all(a is b for a, b in zip(old, new, strict=True)):
        return kind
    if pa.types.is_struct(kind):
        return pa.struct(new)
    if pa.types.is_map(kind):
        return pa.map_(
            _plain_field(kind.key_field), _plain_field(kind.item_field), kind.keys_sorted
        )
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(new[0], kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(new[0])
    if pa.types.is_list(kind):
        return pa.list_(new[0])
    if pa.types.is_large_list_view(kind):
        return pa.large_list_view(new[0])
    if pa.types.is_list_view(kind):
        return pa.list_view(new[0])
    if pa.types.is_union(kind):
        return pa.union(new, mode=kind.mode, type_codes=kind.type_codes)
    msg = f"dictionaries inside {kind} cannot be handed on (decode them first)"
    raise TypeError(msg)


def _plain_array(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type.equals(kind):
        return array
    if pa.types.is_dictionary(array.type):
        return _plain_array(array.dictionary_decode(), kind)
    if pa.types.is_struct(kind) or pa.types.is_union(kind):
        return _with_members(array, kind)
    # Lists of all sorts: the same places in a plain array of elements.
    own = len(array.buffers()) - len(array.values.buffers())
    return pa.Array.from_buffers(
        kind,
        len(array),
        array.buffers()[:own],
        array.null_count,
        array.offset,
        [_plain_array(array.values, kind.field(0).type)],
    )


def _with_members(array: pa.Array, kind: pa.DataType) -> pa.Array:
    fields = [kind.field(i) for i in range(kind.num_fields)]
    members = [_plain_array(array.field(i), field.type) for i, field in enumerate(fields)]
    if pa.types.is_struct(kind):
        return pa.StructArray.from_arrays(members, fields=fields, mask=array.is_null())
    codes, offsets = (None if each is None else pa.array(each) for each in union_places(array))
    names = [field.name for field in fields]
    if kind.mode == "sparse":
        return pa.UnionArray.from_sparse(codes, members, names, kind.type_codes)
    return pa.UnionArray.from_dense(codes, offsets, members, names, kind.type_codes)
