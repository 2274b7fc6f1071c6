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
