"""A node that shows what passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from smallpond.logical.node import Context, Node, PythonScriptNode

if TYPE_CHECKING:
    from smallpond.execution.task import RuntimeContext
    from smallpond.logical.dataset import DataSet


class LogDataSet(PythonScriptNode):
    """Writes the files and first rows of its inputs into the log of the worker."""

    def __init__(
        self, ctx: Context, input_deps: Sequence[Node], num_rows: int = 200, **kwargs: Any
    ) -> None:
        super().__init__(ctx, input_deps, **kwargs)
        self.num_rows = num_rows

    def process(
        self,
        runtime_ctx: RuntimeContext,  # noqa: ARG002
        input_datasets: list[DataSet],
        output_path: str,  # noqa: ARG002
    ) -> bool:
        """Logs every input."""
        for dataset in input_datasets:
            dataset.log(self.num_rows)
        return True
