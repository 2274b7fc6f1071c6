"""One run at a deployed site: its node, its ledger and its memory, open for as long as the process lives."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from medfed.core.errors import LedgerError, RefusalReason, Refused
from medfed.core.files import sync_folder, write_atomically
from medfed.core.wire import Reply, Request
from medfed.engine.budget import SiteBudget
from medfed.engine.cohort import check_cohort
from medfed.engine.deployed.budget import budget_of
from medfed.engine.deployed.cohorts import cohort, cohort_key, dataset_of, table_of
from medfed.engine.deployed.folders import SiteFolder
from medfed.engine.deployed.kept import Keepsakes
from medfed.engine.deployed.messages import ShownHead, Trained
from medfed.engine.deployed.settings import LiveSettings
from medfed.engine.federation import share
from medfed.engine.hiding import Hiding
from medfed.engine.labels import SiteLabels
from medfed.engine.mechanisms import hiding_at
from medfed.engine.rows import SiteRows
from medfed.engine.simulation import COORDINATOR
from medfed.engine.site import SiteNode
from medfed.engine.store import RunStore
from medfed.engine.strategies import apart, resolve_strategy
from medfed.engine.trained import as_the_site_uses_it
from medfed.govern.approvals import ApprovalStore
from medfed.govern.decisions import Decision
from medfed.govern.entries import OpenedEntry, PolicyEntry, RequestEntry, WitnessEntry
from medfed.govern.keys import VerifyKey
from medfed.govern.ledger import LedgerFolder
from medfed.govern.proposals import Proposal
from medfed.govern.views import Views
from medfed.models.catalogue import NetworkCache
from medfed.privacy.graph import least_sites
from medfed.spec.policy import Policy
from medfed.version import __version__

_PATIENCE = 10.0
"""Seconds that a process of the same run, left over from a job that ended, has to end."""


class SiteRun:
    """A run (see the module). Only what the site's steward approved gets this far."""

    def __init__(
        self,
        folder: SiteFolder,
        run: str,
        proposal: Proposal,
        keys: Mapping[str, VerifyKey],
        settings: LiveSettings,
        approvals: ApprovalStore,
    ) -> None:
        """Open the run's ledger and memory, new or those that are there.

        keys: of the other parties. Raises Refused where the ledger cannot be written, TaskError, RunFolderError.
        """
        self.folder, self.run, self.proposal = folder, run, proposal
        self._settings = settings
        self._approvals = approvals
        self._task = proposal.task_file()
        self.kept = Keepsakes(folder.models(run))
        self._recorded: Policy | None = None
        self._bound = 0
        self._bind(approvals.check_approved(proposal.digest, datetime.now(UTC)))
        self._end_left_over()
        with contextlib.ExitStack() as undo:
            ledgers = undo.enter_context(LedgerFolder.open(folder.ledger(run), folder.key(), durable=True))
            _write_process_id(self._process_file)
            self.ledger = ledgers.ledger(folder.site)
            if self.ledger.size == 0:
                self.ledger.append(OpenedEntry(run, proposal.digest, __version__))
            self._keys = keys
            self._views = Views.restored(self.ledger)
            self._store = undo.enter_context(RunStore.open(folder.memory(run), durable=True))
            self.node = self._node()
            self._files = undo.pop_all()

    def handle(self, request: Request) -> Reply:
        """The node's reply; it never raises."""
        self._record_policy()
        return self.node.handle(request)

    def known(self, party: str) -> int:
        """The size of a party's last head that this site holds."""
        return self._views.last(party).size

    def see(self, heads: Sequence[ShownHead]) -> None:
        """Check that other parties' heads extend those seen before, and witness them. Raises LedgerError, Refused."""
        witnessed = []
        try:
            for shown in heads:
                if self._extended(shown):
                    witnessed.append(shown)
        finally:
            if witnessed:
                self.ledger.append(
                    *(WitnessEntry(self.run, s.head.round, s.party, s.head.size, s.head.root) for s in witnessed)
                )

    def _extended(self, shown: ShownHead) -> bool:
        """Whether a head is new; another history than the one seen before raises LedgerError.

        A head that proves itself from another size than the one held here is not proved: messages can be lost. The
        coordinator learns with this answer what is held here, so its head is left for the next message. Another site's
        is witnessed without proof; whether it belongs to the same history shows when the ledgers are compared.
        """
        party, head = shown.party, shown.head
        key = self._keys.get(party)
        if key is None:
            raise LedgerError("a head of a party was shown that has no part in the task", where=party)
        held = self.known(party)
        if head.size < held and party != COORDINATOR:
            return False
        if head.size <= held:
            self._views.accept(party, head, (), key)
            return False
        if shown.since == held:
            self._views.accept(party, head, shown.proof, key)
        elif party == COORDINATOR:
            return False
        else:
            self._views.begin_anew(party, head, key)
        return True

    def head(self, round: int, known: int) -> ShownHead:  # noqa: A002
        """A new signed head, and the proof that it extends that of size ``known``."""
        since = known if known <= self.ledger.size else 0
        proof = self.ledger.consistency(since) if since else ()
        return ShownHead(self.folder.site, self.ledger.sign_head(round), since, proof)

    def keep(self, trained: Trained) -> None:
        """Keep the trained model as this site uses it. Raises CodecError for one that is not the task's."""
        memory = self._store.site(self.folder.site)
        own = as_the_site_uses_it(self._task.spec, memory, trained.encoding, trained.model)
        self.kept.keep(trained, self.proposal.task, own)

    def end(self, status: str) -> None:
        """Close the ledger; a request that comes all the same is answered, and recorded, as before."""
        self.ledger.close(self.run, status)

    def close(self) -> None:
        """Give all files back; the run may go on later."""
        self._files.close()
        with contextlib.suppress(OSError):
            self._process_file.unlink()

    def _bind(self, decision: Decision) -> None:
        """An approval is for one run: what another would release was never shown to the steward. Raises Refused."""
        if decision.number == self._bound:
            return
        path = self.folder.proposals / self.proposal.digest / f"run-{decision.number}"
        if not path.exists():
            _claim(path, self.run)
        if path.read_text() != self.run:
            raise Refused(
                "the approval was for one run, which another one has used",
                reason=RefusalReason.TASKS,
                remedy="go on with that run, or ask the site's steward to approve the task anew",
            )
        self._bound = decision.number

    @cached_property
    def _rows(self) -> SiteRows:
        """The rows, as they are when they are first asked for; from then on memory holds them."""
        table = table_of(self.folder, self._settings.current(), self._task)
        check_cohort(self._store, table)
        return SiteRows(table)

    @cached_property
    def _cohort(self) -> str:
        return cohort(self.folder, self._task, self._rows.table).digest

    def _node(self) -> SiteNode:
        spec, site = self._task.spec, self.folder.site
        return SiteNode(
            run=self.run,
            site=site,
            task=spec,
            digest=self.proposal.digest,
            steps=resolve_strategy(self._task, sorted(spec.sites)).steps,
            rows=lambda: self._rows,
            policy=self._policy,
            ledger=self.ledger,
            memory=self._store.site(site),
            networks=NetworkCache(spec.model, spec.seed, spec.engine.device),
            permit=self._permit,
            asked=self._record_request,
            hiding=self._hiding(),
            sites=len(apart(list(spec.sites), spec.evaluation.holdout)[0]),
            labels=SiteLabels(lambda: cohort_key(self.folder)) if spec.privacy.labels is not None else None,
            budget=self._budget,
            log=self.folder.log(self.run),
        )

    def _hiding(self) -> Hiding | None:
        """The site's part in hidden sums, where the task has them. Its partners are the task's sites."""
        spec, site, belongs = self._task.spec, self.folder.site, (self.proposal.digest, self.run)
        parties = {each: key for each, key in self._keys.items() if each in spec.sites}
        parties[site] = self.folder.key().verify_key
        asked = least_sites(share(spec.federation.cohort, len(spec.sites)))
        return hiding_at(site, spec, belongs, self.folder.key(), parties, self._store.sums(site), asked)

    def _budget(self) -> SiteBudget:
        settings = self._settings.current()
        return budget_of(self.folder, self._task, dataset_of(self.folder, settings, self._task))

    def _permit(self) -> None:
        self._bind(self._approvals.check(self.proposal.digest, self._cohort, datetime.now(UTC)))

    def _policy(self) -> Policy:
        """The policy of site.yaml as it is now; the task and its number of rounds are as the steward approved them."""
        policy = self._settings.current().policy
        allowed = policy.limits.rounds
        rounds = self.proposal.rounds if allowed is None else min(allowed, self.proposal.rounds)
        limits = policy.limits.model_copy(update={"rounds": rounds})
        return policy.model_copy(update={"tasks": (self.proposal.digest,), "limits": limits})

    def _record_policy(self) -> None:
        """A policy that is new since the last request is in the ledger before it decides on one."""
        policy = self._settings.current().policy
        if policy != self._recorded:
            self.ledger.append(PolicyEntry(self.run, policy.model_dump_json(by_alias=True)))
            self._recorded = policy

    def _record_request(self, request: Request) -> None:
        entry = RequestEntry(request.run, request.round, request.call, request.step, request.digest())
        self.ledger.append(entry)

    @property
    def _process_file(self) -> Path:
        return self.folder.ledger(self.run) / ".process"

    def _end_left_over(self) -> None:
        """End a process of this run that was left over from a job that died: only one may answer for the site.

        It holds the ledger's lock; what it has not recorded is asked for again.
        """
        patience = time.monotonic() + _PATIENCE
        while (process := _read_process_id(self._process_file)) not in (None, os.getpid()) and _locked(
            self.folder.ledger(self.run)
        ):
            if time.monotonic() > patience:
                raise Refused("another process of this run does not end", where=self.folder.site)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(process or 0), signal.SIGKILL)
            time.sleep(0.05)


def _claim(path: Path, run: str) -> None:
    """Write the run into a file that nobody wrote before, whole or not at all; the first of several stays."""
    mine = path.with_name(f".{path.name}.{run}")
    write_atomically(mine, run, durable=True, mode=0o600)
    with contextlib.suppress(FileExistsError):
        os.link(mine, path)
    mine.unlink()
    sync_folder(path.parent)


def _write_process_id(path: Path) -> None:
    path.write_text(str(os.getpid()))


def _read_process_id(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _locked(folder: Path) -> bool:
    """Whether a process holds the lock of a ledger's folder."""
    import fcntl

    try:
        with (folder / ".lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
