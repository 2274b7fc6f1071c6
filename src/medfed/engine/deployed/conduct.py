"""A whole deployed run at the coordinator: propose, wait for the stewards, train, and leave the outcome."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

from medfed.core.codec import Buffer, decode
from medfed.core.errors import MedFedError, QuorumLost, Refused, Unattested
from medfed.core.timings import Timings
from medfed.core.wire import Failure
from medfed.engine.deployed.attesting import CoordinatorAttests, TlsKeys
from medfed.engine.deployed.carrier import Carrier
from medfed.engine.deployed.folders import CoordinatorFolder
from medfed.engine.deployed.messages import Figure, FromSite, PartyKey, Propose, RoundFigures, Standing, ToSite
from medfed.engine.deployed.parties import DeployedParties
from medfed.engine.deployed.plausible import brief
from medfed.engine.deployed.submission import Submission
from medfed.engine.federation import Conversation, SiteFederation, share
from medfed.engine.folder import RunFolder
from medfed.engine.mechanisms import sums_of
from medfed.engine.process import Process, RoundMetrics, RunState
from medfed.engine.run import run as run_rounds
from medfed.engine.simulation import COORDINATOR, Simulation, attached
from medfed.engine.start import Start
from medfed.engine.strategies import apart, resolve_strategy
from medfed.engine.teacher import KeptTeacher
from medfed.govern.approvals import Status
from medfed.govern.entries import OpenedEntry
from medfed.govern.ledger import LedgerFolder
from medfed.govern.views import Views
from medfed.models.catalogue import NetworkCache
from medfed.spec.loading import TaskFile
from medfed.version import __version__

DEADLINE = 600.0
"""Seconds after which a site that does not answer counts as silent, where the task sets none."""

_TOLD_AGAIN = 10
"""Rounds of an earlier job that the sites are told of again."""

ASK_AGAIN = 3.0
"""Seconds between two questions whether a steward has decided."""


class Pause(Exception):
    """The run stops between two rounds, and goes on as another job: a site has come back."""


@dataclass(frozen=True)
class Conductor:
    """One run, from its submission to its outcome.

    allowed: raises Refused for a revoked site. pause: whether to stop after this round. tls: what the transport knows
    of TLS keys.
    """

    folder: CoordinatorFolder
    submission: Submission
    carrier: Carrier
    allowed: Callable[[str], None]
    pause: Callable[[], bool] = lambda: False
    tls: TlsKeys = TlsKeys()

    @cached_property
    def _attests(self) -> CoordinatorAttests:
        digest = self.submission.proposal().digest
        return CoordinatorAttests(self.folder, self.submission.run, digest, self.carrier, self.tls, DEADLINE)

    def _check(self, site: str) -> None:
        """Raise Refused for a site that was revoked, or has not shown the build that the consortium demands."""
        self.allowed(site)
        self._attests.check(site)

    def conduct(self) -> None:
        """Run to the end. Raises what ends a run: QuorumLost, Refused, DataError, RunFolderError; or Pause."""
        proposal = self.submission.proposal()
        task = proposal.task_file()
        sites = tuple(sorted(task.spec.sites))
        members = self.submission.members()
        standing = self._propose(sites, members)
        if self.submission.wish().propose_only:
            self.submission.tell("proposed", sites=standing)
            return
        if members is None:
            members = tuple(site for site in sites if standing.get(site) == Status.APPROVED)
            training, _ = apart(sites, task.spec.evaluation.holdout)
            needed, approved = share(task.spec.federation.quorum, len(training)), {*training} & {*members}
            if len(approved) < needed:
                for unattested in self._attests.refused.values():
                    raise unattested
                told = "; ".join(f"{site}: {standing.get(site, 'no answer')}" for site in sites)
                raise QuorumLost(
                    f"{len(approved)} of the {needed} sites that the quorum asks for have approved ({told})",
                    remedy="talk with the stewards, then: medfed submit --resume RUN",
                )
            self.submission.freeze_members(members)
        self._train(task, members)

    # --------------------------------------------------------------------------------------------------- approval

    def _propose(self, sites: tuple[str, ...], members: tuple[str, ...] | None) -> dict[str, str]:
        """How the proposal stands at each site that answers, once all have decided or the patience is over."""
        wish, begun = self.submission.wish(), time.monotonic()
        standing: dict[str, str] = {}
        while True:
            told = dict(standing)
            undecided = [s for s in sites if standing.get(s) in (None, Status.WAITING)]
            standing |= self._ask(undecided)
            if standing != told:
                self.submission.tell("standing", sites=standing)
            late = wish.wait is not None and time.monotonic() - begun > wish.wait
            open_ = [s for s in sites if standing.get(s) in (None, Status.WAITING)]
            if not open_ or late or wish.propose_only or members is not None:
                return standing
            time.sleep(ASK_AGAIN)
            if self.pause():
                raise Pause

    def _ask(self, sites: list[str]) -> dict[str, str]:
        keys = self.folder.site_keys() | {COORDINATOR: self.folder.key().verify_key}
        parties = tuple(PartyKey(party, key.raw.hex()) for party, key in sorted(keys.items()))
        proposal = self.submission.proposal()
        content = ToSite(self.submission.run, proposal.digest, (), 0, Propose(proposal, parties))
        known = [site for site in sites if _passes(self.allowed, site)]
        self._attests.ask(known)
        found = self._proposed(known, content)
        if demanding := [site for site, standing in found.items() if standing == Unattested.code]:
            self._attests.show(demanding)
            found |= self._proposed(demanding, content, insisting=True)
        refused = {site: brief(error.cause) for site, error in self._attests.refused.items() if site in sites}
        return found | {site: "revoked" for site in sites if site not in known} | refused

    def _proposed(self, sites: list[str], content: ToSite, *, insisting: bool = False) -> dict[str, str]:
        """How a proposal stands at sites that may have it. insisting: one that demands evidence now refuses."""
        messages = {site: content for site in sites if _passes(self._check, site)}
        carried = self.carrier.carry(messages, DEADLINE) if messages else ()
        found = {}
        for site, answer in carried:
            found[site] = self._standing(site, answer, insisting=insisting)
        return found

    def _standing(self, site: str, answer: Buffer, *, insisting: bool) -> str:
        try:
            content = decode(answer, FromSite).content
        except MedFedError as error:
            return error.cause
        match content:
            case Standing(status=status):
                return brief(status)
            case Failure(code=Unattested.code, sentence=sentence) if insisting:
                self._attests.refused[site] = Unattested(brief(sentence), where=site)
                return brief(sentence)
            case Failure(code=Unattested.code):
                return Unattested.code
            case Failure(sentence=sentence):
                return brief(sentence)
        return "it answered with another message than was asked"

    # --------------------------------------------------------------------------------------------------- training

    def _train(self, task: TaskFile, members: tuple[str, ...]) -> None:
        run, spec = self.submission.run, task.spec
        proposal = self.submission.proposal()
        run_folder = RunFolder.open(self.submission.folder)
        with ExitStack() as undo:
            ledgers = undo.enter_context(LedgerFolder.open(run_folder.path / "ledger", self.folder.key(), durable=True))
            ledger = ledgers.ledger(COORDINATOR)
            if ledger.size == 0:
                ledger.append(OpenedEntry(run, proposal.digest, __version__))
            timings = Timings()
            keys = {site: key for site, key in self.folder.site_keys().items() if site in members}
            views = Views.restored(ledger)
            deadline = spec.federation.deadline or DEADLINE
            noisy = spec.privacy.release is not None
            parties = DeployedParties(
                run, proposal.digest, self.carrier, ledger, keys, views, self._check, deadline, timings, noisy
            )
            parties.told.extend(_told_before(self.submission))
            strategy = resolve_strategy(task, members)
            trainers, external = apart(members, spec.evaluation.holdout)
            federation = SiteFederation(
                Conversation(parties, run, proposal.digest),
                trainers,
                spec.federation,
                spec.seed,
                sums_of(spec, len(spec.sites), keys),
                spec.privacy.totals_only,
            )
            networks, start = NetworkCache(spec.model, spec.seed), Start.of(run_folder.path, spec)
            teacher = KeptTeacher.of(run_folder.path, spec)
            process = Process(spec, strategy, federation, networks, external, start, teacher)
            policies = dict.fromkeys(members, "its own")
            simulation = Simulation(run, parties, ledger, ledgers, policies, timings, simulated=False)
            undo.enter_context(attached(simulation))
            if not run_folder.finished:
                run_rounds(process, simulation, run_folder, _Teller(self.submission, parties, self.pause))
            self._hand_over(parties, run_folder)

    def _hand_over(self, parties: DeployedParties, run_folder: RunFolder) -> None:
        """Give the sites the model: those that answer, or where it is wished, all, however long it takes."""
        insist = self.submission.wish().hand_over
        while True:
            have = parties.hand_over(run_folder.path)
            self.submission.tell("handed_over", sites=sorted(have))
            if not insist or have == frozenset(parties.keys):
                return
            if self.pause():
                raise Pause
            time.sleep(ASK_AGAIN)


def _passes(check: Callable[[str], None], site: str) -> bool:
    try:
        check(site)
    except Refused:
        return False
    return True


def _told_before(submission: Submission) -> tuple[RoundFigures, ...]:
    """The last rounds of earlier jobs, which not every site may have heard of."""
    last = deque((e for _, e in submission.events() if e["event"] == "round"), maxlen=_TOLD_AGAIN)
    return tuple(
        RoundFigures(e["round"], tuple(Figure(m["site"], m["metric"], m["value"]) for m in e["metrics"])) for e in last
    )


@dataclass
class _Teller:
    """Tells a run's progress to whoever follows it (implements :class:`medfed.engine.run.Observer`)."""

    submission: Submission
    parties: DeployedParties
    pause: Callable[[], bool]

    def begun(self, process: Process, state: RunState) -> None:
        """The rounds begin."""
        task = process.task
        self.submission.tell(
            "begun",
            strategy=task.federation.strategy.name,
            sites=list(process.federation.sites),
            round=state.round,
            rounds=task.federation.total_rounds,
        )

    def advanced(self, state: RunState, metrics: RoundMetrics) -> None:
        """A round is done."""
        rows = [
            {"site": r.site, "split": r.split.value, "metric": r.measure.metric, "value": r.measure.value}
            for r in metrics.rows
        ]
        figures = tuple(Figure(r.site, r.measure.metric, r.measure.value) for r in metrics.rows)
        self.parties.told.append(RoundFigures(state.round, figures))
        absent = [{"site": a.site, "step": a.step, "sentence": a.sentence} for a in metrics.absences]
        self.submission.tell("round", round=state.round, time=time.time(), metrics=rows, absent=absent)
        if not state.stopped and self.pause():
            raise Pause
