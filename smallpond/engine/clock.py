"""The time of day in queries: that of the run, whichever task asks and whenever it does.

SQL has one time for the whole of a query. Tasks are queries of their own, so that the functions of
DuckDB are replaced where a text speaks of them; they keep their types.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

_TIMES = {
    "now": "",
    "get_current_timestamp": "",
    "transaction_timestamp": "",
    "today": "::DATE",
    "current_date": "::DATE",
    "get_current_time": "::TIMETZ",
    "current_localtimestamp": "::TIMESTAMP",
    "current_localtime": "::TIMESTAMP::TIME",
}
# The words by which these are called, and SQL's that need no brackets.
_ASKS = re.compile(rf"\b({'|'.join(_TIMES)}|current_time\w*|localtime\w*)\b", re.IGNORECASE)


def asks_for_time(text: str) -> bool:
    """Whether a query may ask what time it is."""
    return _ASKS.search(text) is not None


def set_time(con: Any, seconds: float) -> None:
    """Has a connection take a time, in seconds since 1970, for the present.

    Args:
        con: of DuckDB; others of the same database keep their own.
        seconds: to the microsecond.
    """
    stamp = f"TIMESTAMPTZ '{datetime.fromtimestamp(seconds, UTC).isoformat(' ')}'"
    for name, cast in _TIMES.items():
        con.execute(f"CREATE OR REPLACE TEMP MACRO {name}() AS ({stamp}){cast}")
