"""What brings bytes to sites and back: all that MedFed asks of a transport."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from medfed.core.codec import Buffer
from medfed.engine.deployed.messages import ToSite


class Carrier(Protocol):
    """Sends each site its message at once; the bytes that come back are not trusted."""

    def carry(self, messages: Mapping[str, ToSite], deadline: float | None) -> Iterator[tuple[str, Buffer]]:
        """(site, encoded answer) as answers come; a site that is away or late (seconds) is left out.

        Raises :class:`medfed.core.errors.MedFedError` where the transport as a whole has ended.
        """
        ...
