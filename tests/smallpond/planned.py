"""Rows of plans by the rules that a test names, whatever a session would do of itself."""

from __future__ import annotations

import pyarrow as pa
import pytest

import smallpond
from smallpond.physical import cut
from smallpond.plan import Plan
from smallpond.rules import Spread, distribute, hold_shared, optimise

SPREAD = pytest.mark.parametrize("spread", [Spread(None), Spread(3)], ids=["together", "spread"])


def rows_of(sp: smallpond.Session, plan: Plan) -> pa.Table:
    """The rows of a plan as it is, without any rule."""
    return sp.job.rows(plan, cut(plan, sp.job.machine(), to_driver=True))


def rows_by_rules(sp: smallpond.Session, plan: Plan, spread: Spread) -> pa.Table:
    """The rows of a plan by all rules, spread as widely as the test says."""
    return rows_of(sp, distribute(optimise(hold_shared(plan)), spread))
