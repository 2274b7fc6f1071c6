"""The default engine where there is little to spread: every simulated site in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medfed.core.timings import Phase
from medfed.core.wire import Reply, Request
from medfed.engine.host import Host
from medfed.govern.heads import Head


class InProcess:
    """Hands requests to one host in this process (implements :class:`medfed.engine.simulation.Parties`)."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def exchange(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Replies in the order of the requests; a site past its deadline is silent."""
        for replies in self.host.handle(requests):
            yield from replies

    def sign_heads(self, round_number: int) -> dict[str, Head]:
        """The new heads of the sites that acted."""
        return self.host.sign_heads(round_number)

    def witness(self, head: Head, party: str) -> None:
        """Record another party's head in the ledgers of the sites that signed last."""
        self.host.witness(head, party)

    def close(self, status: str) -> dict[str, Head]:
        """Record how the run ended in every ledger; their last heads."""
        return self.host.close(status)

    def spent(self) -> dict[Phase, float]:
        """Nothing beside what this process counts anyhow."""
        return {}

    def detach(self) -> None:
        """Give all files back; the run may go on later."""
        self.host.detach()
