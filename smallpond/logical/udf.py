"""User-defined functions for SQL, and the types of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from smallpond.errors import PlanError
from smallpond.functions import FunctionRef, Udf


class UDFType(Enum):
    """A plain SQL type, by the name that it has in SQL."""

    SQLNULL = "NULL"
    BOOLEAN = "BOOLEAN"
    TINYINT = "TINYINT"
    UTINYINT = "UTINYINT"
    SMALLINT = "SMALLINT"
    USMALLINT = "USMALLINT"
    INTEGER = "INTEGER"
    UINTEGER = "UINTEGER"
    BIGINT = "BIGINT"
    UBIGINT = "UBIGINT"
    HUGEINT = "HUGEINT"
    UUID = "UUID"
    FLOAT = "FLOAT"
    DOUBLE = "DOUBLE"
    DATE = "DATE"
    TIMESTAMP = "TIMESTAMP"
    TIMESTAMP_MS = "TIMESTAMP_MS"
    TIMESTAMP_NS = "TIMESTAMP_NS"
    TIMESTAMP_S = "TIMESTAMP_S"
    TIME = "TIME"
    TIME_TZ = "TIMETZ"
    TIMESTAMP_TZ = "TIMESTAMPTZ"
    VARCHAR = "VARCHAR"
    BLOB = "BLOB"
    BIT = "BIT"
    INTERVAL = "INTERVAL"

    def sql(self) -> str:
        """The type in SQL."""
        return self.value

    def to_duckdb_type(self) -> Any:
        """The type as DuckDB's Python package has it."""
        return _duckdb_type(self.sql())


class _Composed:
    """A type made of others."""

    def sql(self) -> str:
        raise NotImplementedError

    def to_duckdb_type(self) -> Any:
        """The type as DuckDB's Python package has it."""
        return _duckdb_type(self.sql())


class UDFListType(_Composed):
    """A list of ``child``."""

    def __init__(self, child: Any) -> None:
        self.child = child

    def sql(self) -> str:
        return f"{_sql(self.child)}[]"


class UDFStructType(_Composed):
    """A struct with named fields, or with fields v1, v2 and so on."""

    def __init__(self, fields: Mapping[str, Any] | Sequence[Any]) -> None:
        self.fields = fields

    def sql(self) -> str:
        items = (
            self.fields.items()
            if isinstance(self.fields, Mapping)
            else ((f"v{i}", kind) for i, kind in enumerate(self.fields, start=1))
        )
        return f"STRUCT({', '.join(f'{name} {_sql(kind)}' for name, kind in items)})"


class UDFMapType(_Composed):
    """A map from ``key`` to ``value``."""

    def __init__(self, key: Any, value: Any) -> None:
        self.key = key
        self.value = value

    def sql(self) -> str:
        return f"MAP({_sql(self.key)}, {_sql(self.value)})"


class UDFAnyParameters:
    """Any number of parameters of any type."""

    def to_duckdb_type(self) -> None:
        """No list of types, which DuckDB takes for any."""


class UserDefinedFunction:
    """A function that queries can call once it is in their ``udfs``."""

    def __init__(
        self,
        name: str,
        func: Callable[..., Any],
        params: Any,
        return_type: Any,
        use_arrow_type: bool = False,
    ) -> None:
        self.name = name
        self.func = func
        self.params = params
        self.return_type = return_type
        self.use_arrow_type = use_arrow_type

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.func(*args, **kwargs)


def udf(
    params: Any, return_type: Any, use_arrow_type: bool = False, name: str | None = None
) -> Callable[[Callable[..., Any]], UserDefinedFunction]:
    """Makes a function callable from SQL.

    Args:
        params: types of its parameters, or `UDFAnyParameters()`.
        return_type: of its result.
        use_arrow_type: it takes and gives Arrow arrays instead of single values.
        name: in SQL; the function's own by default.

    Example:
        ``@udf(params=[UDFType.INTEGER], return_type=UDFType.INTEGER)``
    """

    def decorate(func: Callable[..., Any]) -> UserDefinedFunction:
        return UserDefinedFunction(name or func.__name__, func, params, return_type, use_arrow_type)

    return decorate


def registered(operation: str, value: Any) -> Udf:
    """What a plan says of a function.

    Raises:
        PlanError: it is no user-defined function.
    """
    if isinstance(value, Udf):
        return value
    if not isinstance(value, UserDefinedFunction):
        raise PlanError(
            f"{operation}: udfs takes functions made by @udf(params=..., return_type=...), "
            f"got {value!r}"
        )
    anything = value.params is None or isinstance(value.params, UDFAnyParameters)
    return Udf(
        value.name,
        FunctionRef.of(value.func, operation),
        None if anything else tuple(_sql(kind) for kind in value.params),
        None if value.return_type is None else _sql(value.return_type),
        value.use_arrow_type,
    )


def _sql(kind: Any) -> str:
    if isinstance(kind, str):
        return kind
    text: str = kind.sql()
    return text


def _duckdb_type(text: str) -> Any:
    import duckdb  # noqa: PLC0415

    return duckdb.sqltype(text)
