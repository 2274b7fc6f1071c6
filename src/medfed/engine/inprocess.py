"""The default engine: every site's node in this process, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from medfed.core.wire import Reply, Request


class InProcess:
    """Hands each request to its site's node.

    deadline: seconds a site has for one request; a later reply is not passed on, as a real network would lose it,
    and the site keeps it for a repeated request. The time of each site counts alone, for in a real federation
    sites work side by side.
    """

    def __init__(self, nodes: Mapping[str, Callable[[Request], Reply]], deadline: float | None = None) -> None:
        self._nodes = nodes
        self._deadline = deadline

    def exchange(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Replies in the order of the requests; a site past its deadline is silent."""
        for request in requests:
            begun = time.monotonic()
            reply = self._nodes[request.site](request)
            if self._deadline is None or time.monotonic() - begun <= self._deadline:
                yield reply
