"""The total of replies, folded in the order of site ids so that every engine gives the same bits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, TypeVar

from medfed.core.codec import decode, encode
from medfed.core.messages import Message, add

R = TypeVar("R", bound=Message)


class OrderedFold(Generic[R]):
    """Adds contributions in the order of ``sites``, whatever the order of arrival.

    One that comes before its turn waits on disk, so that memory holds the total and one contribution.
    """

    def __init__(self, sites: Iterable[str], kind: type[R]) -> None:
        self._pending = sorted(sites)
        self._kind = kind
        self._waiting: dict[str, Path | None] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._spooled = 0
        self.total: R | None = None

    def __enter__(self) -> OrderedFold[R]:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def contribute(self, site: str, contribution: R) -> None:
        """Add one site's contribution, now or when its turn comes."""
        if self._pending and site == self._pending[0]:
            self.total = add(self.total, contribution)
            self._pending.pop(0)
            self._catch_up()
        else:
            self._waiting[site] = self._spool(contribution)

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
            path = self._waiting.pop(self._pending.pop(0))
            if path is not None:
                self.total = add(self.total, decode(path.read_bytes(), self._kind))
                path.unlink()

    def _spool(self, contribution: R) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="medfed-")
        self._spooled += 1
        path = Path(self._folder.name) / str(self._spooled)
        path.write_bytes(encode(contribution))
        return path
