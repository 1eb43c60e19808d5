"""The assignment problem: who gets what, one to one, so that the whole is worth most."""

from __future__ import annotations

import numpy as np

from eplb.plan import Floats, Ints


def assign(values: Floats) -> Ints:
    """[num_problems, n]: the column of each row, every column once, with the largest sum of values.

    Rows are added one by one along the shortest augmenting path, all problems in lock-step, so that
    a step costs little more for many problems than for one. (Hungarian method: H. W. Kuhn, 1955;
    in this form R. Jonker and A. Volgenant, 1987.)

    Args:
        values: [num_problems, n, n] finite.
    """
    costs = -values
    num_problems, size = costs.shape[:2]
    problems = np.arange(num_problems)
    row_prices = costs.min(axis=2, initial=np.inf)
    column_prices = np.zeros((num_problems, size))
    row_of = np.full((num_problems, size), -1)
    column_of = np.full((num_problems, size), -1)
    for row in range(size):
        # Where the cheapest column is free there is nothing to search for.
        tight = (costs[:, row] - row_prices[:, row, None] - column_prices <= 0) & (row_of < 0)
        column = tight.argmax(axis=1)
        at_once = tight[problems, column]
        row_of[problems[at_once], column[at_once]] = row
        column_of[problems[at_once], row] = column[at_once]
        rest = np.flatnonzero(~at_once)
        if len(rest):
            prices = row_prices[rest], column_prices[rest], row_of[rest], column_of[rest]
            _add_row(costs[rest], row, *prices)
            row_prices[rest], column_prices[rest], row_of[rest], column_of[rest] = prices
    return column_of


def _add_row(
    costs: Floats,
    row: int,
    row_prices: Floats,
    column_prices: Floats,
    row_of: Ints,
    column_of: Ints,
) -> None:
    """Gives `row` a column in every problem; others may have to change theirs."""
    num_problems, size = row_of.shape
    distance = np.full((num_problems, size), np.inf)
    came_from = np.full((num_problems, size), row)
    scanned = np.zeros((num_problems, size), dtype=bool)
    end = np.full(num_problems, -1)
    length = np.zeros(num_problems)
    rows = np.full(num_problems, row)
    active = np.arange(num_problems)
    while len(active):
        reduced = costs[active, rows] - row_prices[active, rows, None] - column_prices[active]
        through = length[active, None] + reduced
        closer = (through < distance[active]) & ~scanned[active]
        distance[active] = np.where(closer, through, distance[active])
        came_from[active] = np.where(closer, rows[:, None], came_from[active])
        column = np.where(scanned[active], np.inf, distance[active]).argmin(axis=1)
        length[active] = distance[active, column]
        scanned[active, column] = True
        rows = row_of[active, column]
        end[active[rows < 0]] = column[rows < 0]
        active, rows = active[rows >= 0], rows[rows >= 0]
    # New prices first: the assignment that they belong to is the one before.
    surplus = np.where(scanned, length[:, None] - distance, 0.0)
    row_prices[:, row] += length
    problem, column = np.nonzero(scanned & (row_of >= 0))
    row_prices[problem, row_of[problem, column]] += surplus[problem, column]
    column_prices -= surplus
    problems = np.arange(num_problems)
    while len(problems):
        parent = came_from[problems, end]
        following = column_of[problems, parent]
        row_of[problems, end] = parent
        column_of[problems, parent] = end
        problems, end = problems[parent != row], following[parent != row]
