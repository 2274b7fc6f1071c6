"""The total of replies, folded in the order of site ids so that every engine gives the same bits."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterable
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from medfed.core.codec import decode, parts
from medfed.core.mapped import is_mapped
from medfed.core.messages import Message, add, additive_fields

R = TypeVar("R", bound=Message)

EARLY_BYTES = 16 * 2**20
"""The bytes of early contributions that wait in memory."""


class OrderedFold(Generic[R]):
    """Adds contributions in the order of ``sites``, whatever the order of arrival.

    Of those that come before their turn, ``early_bytes`` wait in memory as they are and the others on disk, where some
    are already. Besides these it holds the total alone, whose arrays are its own and can be written.
    """

    def __init__(self, sites: Iterable[str], kind: type[R], early_bytes: int = EARLY_BYTES) -> None:
        self._pending = deque(sorted(sites))
        self._kind = kind
        self._early_bytes = early_bytes
        self._waiting: dict[str, R | Path | None] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._spooled = 0
        self.total: R | None = None

    def __enter__(self) -> OrderedFold[R]:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def contribute(self, site: str, contribution: R) -> None:
        """Add one site's contribution, now or when its turn comes.

        Raises CodecError where its arrays have another shape than those of the sites before it.
        """
        if self._pending and site == self._pending[0]:
            self.total = add(self.total, contribution)
            self._pending.popleft()
            self._catch_up()
        else:
            self._waiting[site] = self._kept(contribution)

    def absent(self, site: str) -> None:
        """Wait no longer for a site."""
        self._waiting[site] = None
        self._catch_up()

    def finish(self) -> R | None:
        """The total over all that contributed; sites not heard of are absent. None where nobody did."""
        for site in list(self._pending):
            if site not in self._waiting:
                self.absent(site)
        return self.total

    def _catch_up(self) -> None:
        while self._pending and self._pending[0] in self._waiting:
            kept = self._waiting.pop(self._pending.popleft())
            if isinstance(kept, Path):
                self.total = add(self.total, self._mapped(kept))
                kept.unlink()
            elif kept is not None:
                self._early_bytes += _size(kept)
                self.total = add(self.total, kept)

    def _kept(self, contribution: R) -> R | Path:
        """The contribution itself, or the file that holds it."""
        if (size := _size(contribution)) <= self._early_bytes:
            self._early_bytes -= size
            return contribution
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="medfed-")
        self._spooled += 1
        path = Path(self._folder.name) / str(self._spooled)
        with path.open("wb") as file:
            file.writelines(parts(contribution))
        return path

    def _mapped(self, path: Path) -> R:
        """The contribution in a file, as views into it."""
        with path.open("rb") as file:
            return decode(mmap(file.fileno(), 0, access=ACCESS_READ), self._kind)


def _size(contribution: Message) -> int:
    """The bytes of a contribution's arrays in memory: of those that do not look into a file."""
    values = (getattr(contribution, name) for name in additive_fields(type(contribution)))
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray) and not is_mapped(value))
