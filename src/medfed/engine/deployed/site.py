"""A deployed site: the one place where a coordinator's bytes come in and the site's answers go out.

Whatever comes, :meth:`DeployedSite.answer` gives an answer and never raises: it is written for a coordinator that lies.
What it knows of a run, it has from its own files: the proposal that its steward approved, its settings, its keys.
"""

from __future__ import annotations

import contextlib
import json
import traceback
from datetime import UTC, datetime
from pathlib import Path

from medfed.core.codec import Buffer, decode, encode
from medfed.core.errors import CodecError, LedgerError, MedFedError, RefusalReason, Refused
from medfed.core.files import write_once
from medfed.core.messages import Message
from medfed.core.steps import installed_step
from medfed.core.wire import Failure, Reply, Request
from medfed.engine.deployed.attesting import SiteAttests, TlsKeys
from medfed.engine.deployed.cohorts import cohort, table_of
from medfed.engine.deployed.folders import SiteFolder, check_ids
from medfed.engine.deployed.messages import (
    Attest,
    Ended,
    EndRun,
    FromSite,
    Kept,
    PartyKey,
    Propose,
    ShownEvidence,
    ShownHead,
    Standing,
    ToSite,
    Trained,
)
from medfed.engine.deployed.office import office_ledger
from medfed.engine.deployed.partners import told_keys
from medfed.engine.deployed.settings import LiveSettings
from medfed.engine.deployed.siterun import SiteRun
from medfed.engine.simulation import COORDINATOR
from medfed.engine.strategies import resolve_strategy
from medfed.govern.approvals import ApprovalStore, Status
from medfed.govern.entries import OFFICE, ProposalEntry, RefusalEntry
from medfed.govern.keys import VerifyKey
from medfed.govern.proposals import Proposal, check_releases

ATTESTED = "attested"
"""How a coordinator stands that has shown an allowed build."""

_MOST_PARTIES = 10_000
_LARGEST = 2**32
"""The bytes of the largest message, where the policy sets no limit."""

_AROUND_A_REQUEST = 16 * 2**20
"""Bytes that a message may have besides its request's: numbers, heads and their proofs."""

_LONGEST = 200
"""Characters of a text from the coordinator that is written into a ledger."""


class DeployedSite:
    """A site's folder at work. One process at a time answers for a run."""

    def __init__(self, folder: SiteFolder, tls: TlsKeys | None = None) -> None:
        """tls: what the transport knows of TLS keys. Raises UserError, TaskError where the folder's files are wrong."""
        self.folder = folder
        self._attests = SiteAttests(folder, tls or TlsKeys())
        self.settings = LiveSettings(folder.settings)
        self._approvals = ApprovalStore(folder.proposals, folder.key(), folder.coordinator_key())
        self._runs: dict[str, SiteRun] = {}

    def answer(self, content: Buffer) -> bytes:
        """The encoded answer to a message from the coordinator."""
        return encode(self.respond(content))

    def respond(self, content: Buffer) -> FromSite:
        """The answer to a message from the coordinator."""
        message: ToSite | None = None
        head: ShownHead | None = None
        reply: Message
        try:
            self._check_size(content)
            message = decode(content, ToSite)
            check_ids(message.run, message.task)
            _check_texts(message.content)
            reply, head = self._answered(message)
        except MedFedError as error:
            reply = self._declined(message, error)
        except Exception:
            self._log(OFFICE)
            cause = "the site could not answer; its own log says why"
            reply = self._declined(message, MedFedError(cause))
        run = self._runs.get(message.run) if message is not None else None
        return FromSite(self.folder.site, head, run.known(COORDINATOR) if run is not None else 0, reply)

    def decline(self, error: MedFedError) -> FromSite:
        """The answer to a message that did not arrive whole; it is in the ledger first."""
        return FromSite(self.folder.site, None, 0, self._declined(None, error))

    @property
    def largest(self) -> int:
        """The bytes of the largest message that is worth receiving."""
        most = self.settings.current().policy.limits.request_bytes
        return _LARGEST if most is None else most + _AROUND_A_REQUEST

    def close(self) -> None:
        """Give all files back; the runs may go on later."""
        for run in self._runs.values():
            run.close()
        self._runs.clear()

    def _answered(self, message: ToSite) -> tuple[Message, ShownHead | None]:
        demanded = self.settings.current().attestation
        match message.content:
            case Attest() as asked:
                return self._attests.answer(demanded, message.run, asked), None
            case ShownEvidence() as given:
                self._attests.see(demanded, message.run, given)
                return Standing(ATTESTED, ""), None
        self._attests.check(demanded, message.run)
        match message.content:
            case Propose(proposal=proposal, parties=parties):
                return self._file(message, proposal, parties), None
            case Request() as request:
                if request.run != message.run:
                    raise Refused("the request is of another run than its message")
                run = self._run(message)
                run.see(message.heads)
                run.kept.note(message.told, run.proposal.rounds)
                reply = run.handle(request)
                return reply, run.head(request.round, message.known)
            case EndRun(status=status):
                run = self._run(message)
                run.see(message.heads)
                run.kept.note(message.told, run.proposal.rounds)
                run.end(status)
                return Ended(), run.head(0, message.known)
            case Trained() as trained:
                self._run(message).keep(trained)
                return Kept(), None
        raise CodecError(f"a site is not sent a {type(message.content).__name__}")

    def _check_size(self, content: bytes | memoryview) -> None:
        """Refuse before anything is read what the gate would refuse for its size."""
        most = self.settings.current().policy.limits.request_bytes
        if most is not None and len(content) > most + _AROUND_A_REQUEST:
            raise Refused(
                f"the message is larger than the site's policy allows requests to be (limits.request_bytes: {most})",
                reason=RefusalReason.REQUEST_BYTES,
            )

    # ------------------------------------------------------------------------------------------------- proposals

    def _file(self, message: ToSite, proposal: Proposal, parties: tuple[PartyKey, ...]) -> Standing:
        """File a proposal for the steward; say how it stands."""
        if not proposal.verifies(self.folder.coordinator_key()):
            raise Refused("the proposal is not signed by this site's coordinator", reason=RefusalReason.TASKS)
        if proposal.digest != message.task:
            raise Refused("the proposal is of another task than the message names", reason=RefusalReason.TASKS)
        task = proposal.task_file()
        check_releases(proposal, map(installed_step, resolve_strategy(task, sorted(task.spec.sites)).steps))
        new = self._approvals.receive(proposal)
        self._keep_keys(proposal.digest, parties)
        if new:
            with office_ledger(self.folder.path) as ledger:
                ledger.append(
                    ProposalEntry(OFFICE, proposal.digest, proposal.purpose, proposal.legal_basis, proposal.ethics_id)
                )
        self._approve_by_rule(proposal)
        status = self._approvals.status(proposal.digest, datetime.now(UTC))
        return Standing(status.value, _SENTENCES.get(status, ""))

    def _approve_by_rule(self, proposal: Proposal) -> None:
        """What site.yaml approves by its digest needs no steward at a keyboard."""
        settings = self.settings.current()
        waiting = self._approvals.status(proposal.digest, datetime.now(UTC)) is Status.WAITING
        if waiting and proposal.digest in settings.approvals.auto_approve:
            task = proposal.task_file()
            found = cohort(self.folder, task, table_of(self.folder, settings, task))
            with office_ledger(self.folder.path) as ledger:
                self._approvals.auto_approve(proposal.digest, found.digest, found.dataset, ledger)

    def _keep_keys(self, digest: str, parties: tuple[PartyKey, ...]) -> None:
        """The public keys of the other parties, as first told: they do not change under a task."""
        path = self.folder.proposals / digest / "parties.json"
        if len(parties) > _MOST_PARTIES:
            raise Refused("the proposal names more parties than there can be")
        told = {each.party: each.key for each in parties if each.party != self.folder.site}
        if not path.exists():
            _check_keys(told)
            write_once(path, json.dumps(told, ensure_ascii=False).encode(), mode=0o600)
        if json.loads(path.read_text()) != told:
            raise Refused(
                "the proposal came with other parties or keys than the first time",
                remedy="propose it as a new task: change its name",
            )

    def _keys(self, digest: str) -> dict[str, VerifyKey]:
        return told_keys(self.folder, digest) | {COORDINATOR: self.folder.coordinator_key()}

    # ------------------------------------------------------------------------------------------------------ runs

    def _run(self, message: ToSite) -> SiteRun:
        """The run that a message belongs to. Raises Refused where its task is not approved here."""
        run = self._runs.get(message.run)
        if run is None:
            self._approvals.check_approved(message.task, datetime.now(UTC))
            proposal = self._approvals.proposal(message.task)
            run = SiteRun(self.folder, message.run, proposal, self._keys(message.task), self.settings, self._approvals)
            self._runs[message.run] = run
        if run.proposal.digest != message.task:
            raise Refused("the run is of another task than the message names")
        return run

    def _declined(self, message: ToSite | None, error: MedFedError) -> Message:
        """What goes back in place of an answer; it is in a ledger first."""
        request = message.content if message is not None and isinstance(message.content, Request) else None
        step = request.step if request is not None else ""
        if not isinstance(error, Refused | CodecError | LedgerError):
            self._log(OFFICE)
        sentence = f"{error.cause} ({error.remedy})" if error.remedy else error.cause
        code = str(error.reason) if isinstance(error, Refused) else error.code
        with contextlib.suppress(MedFedError), office_ledger(self.folder.path) as ledger:
            round_, call = (request.round, request.call) if request is not None else (0, 0)
            ledger.append(RefusalEntry(OFFICE, round_, call, step[:_LONGEST], code, error.cause[:_LONGEST]))
        failure = Failure(error.code, sentence, step)
        if request is None:
            return failure
        return Reply(
            request.run, self.folder.site, request.round, request.call, request.base, request.digest(), failure
        )

    def _log(self, run: str) -> None:
        """Write the present exception's trace to the site's own log."""
        path = self.folder.log(run)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{datetime.now(UTC).isoformat()}\n{traceback.format_exc()}\n")


def open_site(path: Path) -> DeployedSite:
    """The site of a folder. Raises UserError, TaskError."""
    return DeployedSite(SiteFolder.open(path))


def _check_texts(content: Message) -> None:
    """Refuse texts that would fill the disk by way of the ledger."""
    match content:
        case Request(step=text) | EndRun(status=text) if len(text) > _LONGEST:
            raise Refused(f"a name in the message has more than {_LONGEST} characters")


def _check_keys(told: dict[str, str]) -> None:
    try:
        keys = [bytes.fromhex(key) for key in told.values()]
    except ValueError:
        keys = [b""]
    if any(len(key) != 32 for key in keys):
        raise Refused("the proposal names a party whose key is none")
    if any(len(party) > _LONGEST for party in told):
        raise Refused(f"the proposal names a party by more than {_LONGEST} characters")


_SENTENCES = {
    Status.WAITING: "its steward has not decided yet",
    Status.REFUSED: "its steward refused",
    Status.WITHDRAWN: "its steward withdrew the approval",
    Status.EXPIRED: "its approval, or that of the ethics board, has run out",
}
