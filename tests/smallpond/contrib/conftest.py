"""What the tests of nodes have."""

from tests.smallpond.logical.conftest import ctx, executor, run, table, urls

__all__ = ["ctx", "executor", "run", "table", "urls"]
