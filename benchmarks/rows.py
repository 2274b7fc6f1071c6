"""The rows that every benchmark prints and writes: what was measured, its peer, and its limit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One measurement. ratio: the value over its peer's. limit: what it must not exceed, as ``peer`` says."""

    name: str
    value: float
    unit: str
    ratio: float | None
    limit: float | None
    peer: str


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """``{"rows": [{"name", "value", "unit", "ratio", "limit", "peer"}]}``."""
    path.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def exceeded(rows: Sequence[Row]) -> list[str]:
    """The names of the rows whose ratio is above their limit."""
    return [row.name for row in rows if row.ratio is not None and row.limit is not None and row.ratio > row.limit]


def report(rows: Sequence[Row], path: Path | None) -> int:
    """Print the rows, write them where a file is named, tell those above their limit; the exit status: 1 for any."""
    print_rows(rows)
    if path:
        write_rows(path, rows)
    above = exceeded(rows)
    print(f"above the limit: {', '.join(above) or 'none'}")
    return 1 if above else 0


def print_rows(rows: Sequence[Row]) -> None:
    """A table, one row a line."""
    width = max((len(row.name) for row in rows), default=0)
    print(f"{'row':{width}}{'value':>12} {'unit':10}{'ratio':>9}{'limit':>9}  peer")
    for row in rows:
        ratio, limit = ("" if figure is None else f"{figure:.3f}" for figure in (row.ratio, row.limit))
        print(f"{row.name:{width}}{row.value:12.5g} {row.unit:10}{ratio:>9}{limit:>9}  {row.peer}")
