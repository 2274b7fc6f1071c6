"""The simulated sites that live in one process: their nodes, ledgers and memories."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

from medfed.core.codec import fingerprint
from medfed.core.errors import CodecError, MedFedError
from medfed.core.messages import Message
from medfed.core.steps import installed_step
from medfed.core.timings import Phase, Timings
from medfed.core.wire import Reply, Request
from medfed.engine.blocks import LARGEST_STACK
from medfed.engine.cohort import KEY_BYTES, check_cohort
from medfed.engine.hiding import Hiding
from medfed.engine.labels import SiteLabels
from medfed.engine.mechanisms import hiding_at
from medfed.engine.rows import RowsCache, SiteRows
from medfed.engine.site import Admitted, SiteNode, phase_of
from medfed.engine.stack import CannotStack, SessionStack, StackTrainers
from medfed.engine.store import RunStore, store_path
from medfed.govern.entries import OpenedEntry, PolicyEntry
from medfed.govern.heads import Head
from medfed.govern.keys import SigningKey, VerifyKey
from medfed.govern.ledger import Ledger, LedgerFolder
from medfed.models.catalogue import NetworkCache
from medfed.spec.policy import Policy
from medfed.spec.task import TaskSpec
from medfed.version import __version__


class Keeper(Protocol):
    """What keeps the ledgers and the clocks of some sites, wherever they live."""

    def sign_heads(self, round_number: int) -> dict[str, Head]:
        """The new heads of the sites that acted since their last one."""
        ...

    def witness(self, head: Head, party: str) -> None:
        """Record another party's head in the ledgers of the sites that signed last."""
        ...

    def close(self, status: str) -> dict[str, Head]:
        """Record how the run ended in every ledger; their last heads."""
        ...

    def spent(self) -> dict[Phase, float]:
        """The seconds spent by phase, beside those that the coordinator counts itself."""
        ...

    def detach(self) -> None:
        """Give all files back; the run may go on later."""
        ...


class Host(Keeper, Protocol):
    """What answers for some sites in one process."""

    def handle(self, requests: Sequence[Request]) -> Iterator[list[Reply]]:
        """The replies, block by block; a site past its deadline is silent."""
        ...


@dataclass(frozen=True)
class Consortium:
    """What the processes of a simulated run share: its task, its folder, and its sites' rows and policies.

    blocks: the sites that are stacked (see :mod:`medfed.engine.blocks`). ledgers: the run's, locked for it alone.
    identities: the sites' keys for secure sums, made anew for each process; none where totals are in the clear.
    """

    run: str
    task: TaskSpec
    digest: str
    steps: frozenset[str]
    folder: Path
    ledgers: LedgerFolder
    rows: RowsCache
    policies: Mapping[str, Policy]
    networks: NetworkCache
    blocks: tuple[tuple[str, ...], ...]
    identities: Mapping[str, SigningKey] = field(default_factory=dict)

    @property
    def public_identities(self) -> dict[str, VerifyKey]:
        """The public halves of the sites' identities."""
        return {site: key.verify_key for site, key in self.identities.items()}

    @property
    def stacked(self) -> bool:
        """Whether sites are trained together."""
        return any(len(block) > 1 for block in self.blocks)

    def stores(self, sites: Sequence[str]) -> dict[str, RunStore]:
        """The open store of each site, for this process alone: none may be open when it forks."""
        known = {site: store_path(self.folder, k) for k, block in enumerate(self.blocks) for site in block}
        paths = dict.fromkeys(known[site] for site in sites)
        with ExitStack() as undo:
            opened = {path: undo.enter_context(RunStore.open(path, beside=len(paths) - 1)) for path in paths}
            undo.pop_all()
        return {site: opened[known[site]] for site in sites}

    def begin_stores(self) -> None:
        """Make the stores that are not there, so that forked processes do not all begin them at once."""
        for store in set(self.stores([site for block in self.blocks for site in block]).values()):
            store.close()


class SiteHost:
    """Some of a consortium's sites (implements :class:`Host`). Their files stay open until :meth:`detach`."""

    def __init__(self, consortium: Consortium, sites: Sequence[str], timings: Timings) -> None:
        """Open the sites' ledgers and memories, new or those that are there.

        Each ledger says which policy is in force from here on. Raises what :meth:`LedgerFolder.ledger` raises.
        """
        self._consortium = consortium
        self._timings = timings
        self._stores = consortium.stores(sites)
        with ExitStack() as undo:
            undo.callback(self.detach)
            self.nodes = {site: self._node(site) for site in sites}
            undo.pop_all()
        self._blocks = {site: index for index, block in enumerate(consortium.blocks) for site in block}
        self._trainers = StackTrainers(consortium.task)
        self._checked: WeakSet[SiteRows] = WeakSet()
        self._signed: list[Ledger] = []

    @property
    def stacked(self) -> bool:
        """Whether sites of this host were trained together."""
        return self._trainers.used

    def handle(self, requests: Sequence[Request]) -> Iterator[list[Reply]]:
        """The replies, block by block. What a block's sites keep is committed before any of their replies leaves."""
        for _, block in groupby(requests, key=lambda request: self._blocks[request.site]):
            while together := list(islice(block, LARGEST_STACK)):
                with self._timings[Phase.GATE]:
                    replies = self._block(together)
                yield replies
                del replies

    def sign_heads(self, round_number: int) -> dict[str, Head]:
        """The new heads of the sites that acted since their last one."""
        with self._timings[Phase.LEDGER]:
            acted = {site: node.ledger for site, node in self.nodes.items() if node.ledger.acted}
            self._signed = list(acted.values())
            return {site: ledger.sign_head(round_number) for site, ledger in acted.items()}

    def witness(self, head: Head, party: str) -> None:
        """Record another party's head in the ledgers of the sites that signed last."""
        with self._timings[Phase.LEDGER]:
            for ledger in self._signed:
                ledger.witness(head, party, self._consortium.run)

    def close(self, status: str) -> dict[str, Head]:
        """Record how the run ended in every ledger; their last heads."""
        with self._timings[Phase.LEDGER]:
            return {site: node.ledger.close(self._consortium.run, status) for site, node in self.nodes.items()}

    def spent(self) -> dict[Phase, float]:
        """The seconds spent by phase."""
        return self._timings.seconds

    def detach(self) -> None:
        """Give all files back; the run may go on later."""
        for store in set(self._stores.values()):
            store.close()

    def _node(self, site: str) -> SiteNode:
        shared = self._consortium
        ledger, policy = shared.ledgers.ledger(site), shared.policies[site]
        ledger.append(OpenedEntry(shared.run, shared.digest, __version__))
        ledger.append(PolicyEntry(shared.run, policy.model_dump_json()))
        return SiteNode(
            run=shared.run,
            site=site,
            task=shared.task,
            digest=shared.digest,
            steps=shared.steps,
            rows=partial(self._rows, site),
            policy=lambda: policy,
            ledger=ledger,
            memory=self._stores[site].site(site),
            networks=shared.networks,
            hiding=self._hiding(site),
            sites=len(shared.policies.keys() - {*shared.task.evaluation.holdout}),
            labels=self._labels(site),
            log=shared.folder / "sites" / f"{site}.log",
            timings=self._timings,
        )

    def _labels(self, site: str) -> SiteLabels | None:
        """A site's noisy labels, where the task has them, under the key by which its rows are frozen for the run."""
        if self._consortium.task.privacy.labels is None:
            return None
        return SiteLabels(lambda: (self._stores[site].cohort(site) or b"")[:KEY_BYTES])

    def _hiding(self, site: str) -> Hiding | None:
        """A site's part in sums whose parts are hidden, where the task has them."""
        shared = self._consortium
        if site not in shared.identities:
            return None
        belongs, sums = (shared.digest, shared.run), self._stores[site].sums(site)
        return hiding_at(site, shared.task, belongs, shared.identities[site], shared.public_identities, sums)

    def _rows(self, site: str) -> SiteRows:
        """A site's rows, the same as those with which the run began. Raises DataError where they are not."""
        rows = self._consortium.rows.known(site)
        if rows is None or rows not in self._checked:
            with self._timings[Phase.DATA]:
                rows = self._consortium.rows.get(site)
                check_cohort(self._stores[site], rows.table)
                self._checked.add(rows)
        return rows

    def _block(self, requests: list[Request]) -> list[Reply]:
        twin = self._twin(requests)
        if twin is None:
            return [reply for request in requests if (reply := self._in_time(request)) is not None]
        replies = {request.site: self.nodes[request.site].admit(request) for request in requests}
        admitted = [found for found in replies.values() if isinstance(found, Admitted)]
        for each, reply in zip(admitted, self._together(twin, admitted), strict=True):
            replies[each.request.site] = reply
        return [reply for reply in replies.values() if isinstance(reply, Reply)]

    def _twin(self, requests: list[Request]) -> Callable[..., Sequence[Message]] | None:
        """The batched twin of what all these sites are asked alike, if it may be used."""
        first, task = requests[0], self._consortium.task
        if len(requests) < 2 or task.engine.batched == "off" or task.federation.deadline is not None:
            return None
        if task.privacy.release is not None:  # each site's sum is charged before it is formed
            return None
        asked = fingerprint(first.message)
        alike = all(r.step == first.step and fingerprint(r.message) == asked for r in requests)
        if not alike:
            return None
        try:
            return installed_step(first.step).run_many
        except CodecError:
            return None

    def _together(self, twin: Callable[..., Sequence[Message]], admitted: list[Admitted]) -> list[Reply]:
        """Each site's reply by the twin; where it fails at any site, each site runs by itself to find which."""
        nodes = [self.nodes[each.request.site] for each in admitted]
        if len(admitted) > 1:
            store = self._stores[nodes[0].site]  # of the whole block
            try:
                sessions = [node.session(each) for node, each in zip(nodes, admitted, strict=True)]
                with self._timings[phase_of(admitted[0].step)]:
                    bodies = twin(SessionStack(sessions, self._trainers), admitted[0].request.message)
                together = zip(nodes, admitted, bodies, sessions, strict=True)
                with store.transaction():
                    return [node.release(each, body, session) for node, each, body, session in together]
            except (CannotStack, MedFedError):
                pass
            except Exception:
                nodes[0].log_trace()
        return [node.run_step(each) for node, each in zip(nodes, admitted, strict=True)]

    def _in_time(self, request: Request) -> Reply | None:
        """The reply of one site by itself; None where it comes after the deadline, as a real network would lose it.

        The site keeps it for a repeated request. Each site's time counts alone, for real sites work side by side.
        """
        deadline, begun = self._consortium.task.federation.deadline, time.monotonic()
        reply = self.nodes[request.site].handle(request)
        return reply if deadline is None or time.monotonic() - begun <= deadline else None
