"""The keywords that the original's nodes take: what is meant by them here, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smallpond.config import parse_bytes
from smallpond.errors import PlanError
from smallpond.functions import Udf
from smallpond.plan import Demand

# Accepted for programs written for the original. They tune what is tuned differently here: data
# is handed on in Arrow files, not Parquet, and the engine gives back memory by itself.
_WITHOUT_EFFECT = {
    *("per_thread_output", "materialize_output", "materialize_in_memory", "relax_memory_if_oom"),
    *("batched_processing", "enable_temp_directory", "parquet_row_group_size"),
    *("parquet_dictionary_encoding", "parquet_compression", "parquet_compression_level"),
    *("cpu_overcommit_ratio", "memory_overcommit_ratio", "background_io_thread"),
    *("secs_checkpoint_interval", "use_duckdb_reader", "engine_type", "use_parquet_writer"),
    *("hive_partitioning", "output_name", "output_path", "shuffle_only"),
}


class Keywords:
    """Named arguments that are taken one by one; what is left over is a mistake."""

    def __init__(self, operation: str, given: Mapping[str, Any]) -> None:
        self._operation = operation
        self._left = dict(given)

    def take(self, name: str, *, default: Any) -> Any:
        """The argument's value."""
        return self._left.pop(name, default)

    def demand(self) -> Demand:
        """``cpu_limit``, ``memory_limit`` and ``gpu_limit``."""
        cpus = self.take("cpu_limit", default=None)
        memory = self.take("memory_limit", default=None)
        gpus = self.take("gpu_limit", default=0)
        if isinstance(memory, str):
            memory = parse_bytes(memory, f"{self._operation}: memory_limit")
        for name, value in (("cpu_limit", cpus), ("memory_limit", memory)):
            if value is not None and value <= 0:
                raise PlanError(f"{self._operation}: {name} must be positive, got {value}")
        return Demand(
            None if cpus is None else max(1, int(cpus)),
            None if memory is None else int(memory),
            float(gpus or 0),
        )

    def udfs(self) -> tuple[Udf, ...]:
        """``udfs``, ``extension_paths`` and ``udf_module_paths``."""
        from smallpond.logical.udf import registered  # noqa: PLC0415

        found = [registered(self._operation, udf) for udf in self.take("udfs", default=None) or ()]
        for name in ("extension_paths", "udf_module_paths"):
            paths = self.take(name, default=None) or ()
            found += [Udf(name=str(path), path=str(path)) for path in paths]
        return tuple(found)

    def done(self) -> None:
        """Raises if a keyword is unknown.

        Raises:
            PlanError: names it.
        """
        unknown = [name for name in self._left if name not in _WITHOUT_EFFECT]
        if unknown:
            raise PlanError(f"{self._operation}: unknown keyword {unknown[0]!r}")
