"""What a connector hands over: text as it was read, and images yet to be, before anything is understood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from numpy.typing import NDArray

IMAGE = "image"
"""The one feature column of a table of images."""


class Unreadable(Exception):
    """Why a file gives no image, in a sentence without a name, a path or anything that stands in the file."""

    @property
    def reason(self) -> str:
        """The sentence."""
        return str(self.args[0])


class Picture(Protocol):
    """One image, read when it is asked for."""

    @property
    def name(self) -> str:
        """Where it is, for the site's own people: a path below the dataset's."""
        ...

    def digest(self) -> bytes:
        """SHA-256 of what it is made from, and of how that is read. Raises Unreadable."""
        ...

    def pixels(self) -> NDArray[Any]:
        """Its numbers, (channels, height, width) or (channels, depth, height, width). Raises Unreadable."""
        ...


@dataclass(frozen=True, eq=False)
class Unread:
    """A file that gives no image, and why. ignored: it is none by its nature, so nothing is amiss."""

    name: str
    reason: str
    ignored: bool = False


def _nothing() -> None:
    """There is nothing to give back."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """The images of a table, one a row, and the files that are none. close: gives back what reading took; it may be
    read from again. masks: of each image its own, or None; empty where none were looked for. simulated: what a
    simulation does to how they look, in words."""

    each: tuple[Picture, ...]
    unread: tuple[Unread, ...] = ()
    close: Callable[[], None] = _nothing
    masks: tuple[Picture | None, ...] = ()
    simulated: str = ""

    def at(self, rows: NDArray[Any]) -> Pictures:
        """The images of these rows, with their masks."""
        chosen = rows.tolist()
        masks = tuple(self.masks[row] for row in chosen) if self.masks else ()
        return replace(self, each=tuple(self.each[row] for row in chosen), masks=masks)


@dataclass(frozen=True, eq=False)
class LabelTable:
    """The file that says of images what stands in these columns. lines: of each image, -1 where it has none."""

    name: str
    columns: frozenset[str]
    lines: NDArray[Any]


@dataclass(frozen=True, eq=False)
class RawTable:
    """Columns of text or None, all of one length; missing markers are not yet applied.

    source: where the rows came from, for messages. first_line: the line of the first row in that source,
    counted in records (a quoted line break counts for nothing). pictures: the rows' images, where they have any.
    origin: of a part of a table, the index of each row in the whole. patient: the column in which the connector itself
    finds whose each row is, where it has one. labels: the file beside images, where one was joined to them.
    """

    columns: dict[str, NDArray[Any]]
    source: str
    first_line: int = 1
    pictures: Pictures | None = None
    origin: NDArray[Any] | None = None
    patient: str | None = None
    labels: LabelTable | None = None

    def where(self, rows: NDArray[Any]) -> RawTable:
        """The table of the rows of these indices. Files without an image are not told of again."""
        pictures = None if self.pictures is None else replace(self.pictures.at(rows), unread=())
        columns = {name: values[rows] for name, values in self.columns.items()}
        return replace(
            self, columns=columns, pictures=pictures, origin=rows if self.origin is None else self.origin[rows]
        )

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def place(self, row: int, column: str) -> tuple[str, str]:
        """The file that says a column of a row, counted from 0, and where in it: a line, or which of the images."""
        row = row if self.origin is None else int(self.origin[row])
        if self.pictures is None:
            return self.source, f"line {self.first_line + row}"
        if self.labels is not None and column in self.labels.columns and self.labels.lines[row] >= 0:
            return f"{self.source}/{self.labels.name}", f"line {self.labels.lines[row]}"
        return self.source, f"image {row + 1}"
