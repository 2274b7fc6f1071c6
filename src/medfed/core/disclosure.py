"""Disclosure rules: what a count must be to be shown.

A suppressed count travels as ``None`` and prints as ``withheld``; it is never a zero. Zero itself is shown: it
describes nobody.
"""

from __future__ import annotations

from collections.abc import Mapping

WITHHELD = "withheld"


def releasable(count: int, minimum: int) -> bool:
    """Whether a count of persons may be shown: it is zero, or reaches the minimum."""
    return count == 0 or count >= minimum


def suppress_cells(cells: Mapping[str, int], minimum: int, *, total_shown: bool = True) -> dict[str, int | None]:
    """The cells with those in 1…minimum-1 withheld.

    Where the total is shown beside them and only one cell was withheld, the smallest other non-zero cell is
    withheld too, since the difference would give the first away (complementary suppression).
    """
    shown: dict[str, int | None] = {k: n if releasable(n, minimum) else None for k, n in cells.items()}
    hidden = [k for k, n in shown.items() if n is None]
    if total_shown and len(hidden) == 1:
        others = sorted((n, k) for k, n in shown.items() if n)
        if others:
            shown[others[0][1]] = None
    return shown
