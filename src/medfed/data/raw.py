"""What a connector hands over: text as it was read, before anything is understood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class RawTable:
    """Columns of text or None, all of one length; missing markers are not yet applied.

    source: where the rows came from, for messages. first_line: the line of the first row in that source,
    counted in records (a quoted line break counts for nothing).
    """

    columns: dict[str, NDArray[Any]]
    source: str
    first_line: int = 1

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def line(self, row: int) -> int:
        """The line in the source of a row, counted from 0."""
        return self.first_line + row
