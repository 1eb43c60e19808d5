"""What overlaps with what, counted cell by cell on an integer clock.

A piece of work from `begin` to `end` fills the cells begin, begin + 1, ... end - 1. Everything else
is sets of cells, so that nothing here knows of intervals.
"""

from collections.abc import Iterable, Sequence

Piece = tuple[str, int, int]  # kind, begin, end

COMPUTE = {"compute", "unclassified"}
COMMUNICATION = {"payload", "waiting"}
COPIES = {"copy"}


def cells(pieces: Iterable[Piece], kinds: Iterable[str]) -> set[int]:
    """The cells in which a piece of one of these kinds ran."""
    return {cell for kind, begin, end in pieces if kind in set(kinds) for cell in range(begin, end)}


def figures(pieces: Sequence[Piece]) -> dict[str, int]:
    """How many cells each figure takes."""
    first = min((begin for _, begin, _ in pieces), default=0)
    last = max((end for _, _, end in pieces), default=0)
    compute, communication, copies = (
        cells(pieces, kinds) for kinds in (COMPUTE, COMMUNICATION, COPIES)
    )
    count = dict.fromkeys(
        ["hidden_us", "exposed_us", "copy_alone_us", "idle_us", "compute_us", "communication_us"], 0
    )
    for cell in range(first, last):
        count["compute_us"] += cell in compute
        count["communication_us"] += cell in communication
        count["hidden_us"] += cell in communication and cell in compute
        count["exposed_us"] += cell in communication and cell not in compute
        count["copy_alone_us"] += cell in copies and cell not in compute | communication
        count["idle_us"] += cell not in compute | communication | copies
    return {
        "span_us": last - first,
        "payload_us": len(cells(pieces, {"payload"})),
        "waiting_us": len(cells(pieces, {"waiting"})),
        "copy_us": len(copies),
        **count,
    }


def gaps(pieces: Sequence[Piece]) -> list[tuple[int, int, int]]:
    """Begin, end and exposed cells of each longest run of cells without compute and lone copy."""
    first = min((begin for _, begin, _ in pieces), default=0)
    last = max((end for _, _, end in pieces), default=0)
    compute, communication = cells(pieces, COMPUTE), cells(pieces, COMMUNICATION)
    copy_alone = cells(pieces, COPIES) - compute - communication
    found, begin = [], None
    for cell in range(first, last + 1):
        is_gap = cell < last and cell not in compute | copy_alone
        if is_gap and begin is None:
            begin = cell
        elif not is_gap and begin is not None:
            found.append((begin, cell, len(communication & set(range(begin, cell)))))
            begin = None
    return found
