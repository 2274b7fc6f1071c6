"""The proposals that a site holds, and whether each is approved: the only place where that is known.

``<folder>/<task digest>/proposal.bin`` is what the coordinator signed, ``decisions.jsonl`` beside it what the site's
people decided. Commands and the running site are different processes, so files are looked at anew at every call.
"""

from __future__ import annotations

import contextlib
import enum
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from medfed.core.codec import decode, encode
from medfed.core.errors import CodecError, MedFedError, Refused, UserError
from medfed.core.files import alone, write_atomically
from medfed.govern.decisions import Decision, DecisionKind, encode_decision, read_decisions
from medfed.govern.entries import now as present
from medfed.govern.keys import SigningKey, VerifyKey
from medfed.govern.ledger import Ledger
from medfed.govern.proposals import MAX_BYTES, Proposal, check_proposal, is_day, is_over, refusal

MAX_UNDECIDED = 200
"""Proposals that may wait for a decision at once."""

AUTO_APPROVE = "auto_approve"
"""Who decided, where site.yaml named the task's digest."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LONGEST = 500
_Stamp: TypeAlias = tuple[int, int, int, int]


class Status(enum.StrEnum):
    """How a task stands at a site."""

    UNKNOWN = "unknown"
    WAITING = "waiting"
    APPROVED = "approved"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class ApprovalStore:
    """The proposals of a site and the decisions on them (see the module).

    key: the site's own, which signs decisions; coordinator: the key that has to have signed proposals.
    """

    def __init__(self, folder: Path, key: SigningKey, coordinator: VerifyKey) -> None:
        self.folder = folder
        self._key = key
        self._verify_key = key.verify_key
        self._coordinator = coordinator
        self._proposals: dict[str, tuple[_Stamp, Proposal]] = {}
        self._decisions: dict[str, tuple[_Stamp, tuple[Decision, ...]]] = {}

    # ------------------------------------------------------------------------------------------------ what is known

    def filed(self) -> tuple[str, ...]:
        """The digests of all tasks that were proposed, sorted."""
        return tuple(sorted(p.parent.name for p in self.folder.glob("*/proposal.bin") if _is_digest(p.parent.name)))

    def proposal(self, digest: str) -> Proposal:
        """What was proposed. Raises Refused where nothing was, or it is not as the coordinator signed it."""
        path = self._file(digest, "proposal.bin")
        stamp = _stamp(path)
        if stamp is None:
            raise _not_approved(Status.UNKNOWN)
        known = self._proposals.get(digest)
        if known is None or known[0] != stamp:
            known = self._proposals[digest] = (stamp, self._read_proposal(path, digest))
        return known[1]

    def decisions(self, digest: str) -> tuple[Decision, ...]:
        """All decisions on a task, of which the last counts. Raises Refused where one is not as the site signed it."""
        path = self._file(digest, "decisions.jsonl")
        stamp = _stamp(path)
        if stamp is None:
            return ()
        known = self._decisions.get(digest)
        if known is None or known[0] != stamp:
            known = self._decisions[digest] = (stamp, read_decisions(path, digest, self._verify_key))
        return known[1]

    def status(self, digest: str, now: datetime) -> Status:
        """How a task stands at a moment, which is aware of its time zone. Raises Refused for damaged files."""
        if _stamp(self._file(digest, "proposal.bin")) is None:
            return Status.UNKNOWN
        proposal, decisions = self.proposal(digest), self.decisions(digest)
        if any(decision.proposal != proposal.terms for decision in decisions):
            raise refusal("the proposal is not the one that was decided on", "find out who replaced it", digest)
        match decisions:
            case (*_, Decision(kind=DecisionKind.REFUSE)):
                return Status.REFUSED
            case (*_, Decision(kind=DecisionKind.WITHDRAW)):
                return Status.WITHDRAWN
            case (*_, last) if is_over(last.expires, now) or is_over(proposal.ethics_expires, now):
                return Status.EXPIRED
            case (*_, last):
                return Status.APPROVED
        return Status.EXPIRED if is_over(proposal.ethics_expires, now) else Status.WAITING

    def check_approved(self, digest: str, now: datetime) -> Decision:
        """The approval of a task that is approved. Raises Refused, which says why, for any other."""
        status = self.status(digest, now)
        decisions = self.decisions(digest)
        if status is not Status.APPROVED:
            raise _not_approved(status, decisions[-1].reason if decisions else "")
        return decisions[-1]

    def check(self, digest: str, cohort: str, now: datetime) -> Decision:
        """:meth:`check_approved` for the rows of this digest. Raises Refused where others were approved."""
        decision = self.check_approved(digest, now)
        if decision.cohort != cohort:
            raise refusal(
                "the dataset changed since it was approved: a new approval is needed",
                f"ask the site's steward: medfed site approve {digest[:12]}",
            )
        return decision

    # ----------------------------------------------------------------------------------------------- what is added

    def receive(self, proposal: Proposal) -> bool:
        """File a proposal for the steward; returns whether it is new.

        The same terms may come again and change nothing. Raises Refused where the coordinator did not sign it, where
        it is malformed, where the task is known on other terms, or where too many wait for a decision.
        """
        file = self._file(proposal.digest, "proposal.bin")
        if not proposal.verifies(self._coordinator):
            raise _unsigned()
        with self._locked():
            if _stamp(file) is not None:
                if self.proposal(proposal.digest).terms != proposal.terms:
                    raise refusal(
                        "this task was proposed before on other terms, which stand",
                        "change the task's name, which makes it another task, and submit that",
                    )
                return False
            check_proposal(proposal, self._coordinator)
            waiting = sum(not (self.folder / digest / "decisions.jsonl").exists() for digest in self.filed())
            if waiting >= MAX_UNDECIDED:
                raise refusal(f"{waiting} proposals wait for a decision here", "ask the site's steward to decide")
            self._write(file, encode(proposal))
        return True

    def approve(
        self, digest: str, *, cohort: str, dataset: str, by: str, ledger: Ledger, expires: str | None = None
    ) -> Decision:
        """Approve a task for these rows until a day, by default the last of the ethics board's approval.

        The ledger has the decision before it counts. Raises UserError where the day is over or beyond that last one,
        Refused where the task is unknown or anything cannot be written.
        """
        _check_name(by)
        with self._locked():
            return self._approve(digest, cohort, dataset, by, ledger, expires)

    def auto_approve(self, digest: str, cohort: str, dataset: str, ledger: Ledger) -> Decision:
        """:meth:`approve` a task that site.yaml names by its digest, where nobody has decided yet.

        Returns the last decision: it never takes the place of one that was there.
        """
        with self._locked():
            decisions = self.decisions(digest)
            return decisions[-1] if decisions else self._approve(digest, cohort, dataset, AUTO_APPROVE, ledger, None)

    def refuse(self, digest: str, *, by: str, reason: str) -> Decision:
        """Refuse a task, at once; :meth:`Decision.entry` is for the caller to put into the ledger."""
        return self._decline(DecisionKind.REFUSE, digest, by, reason)

    def withdraw(self, digest: str, *, by: str, reason: str) -> Decision:
        """Take back an approval, at once: :meth:`refuse` in the middle of a run, if need be."""
        return self._decline(DecisionKind.WITHDRAW, digest, by, reason)

    def _approve(
        self, digest: str, cohort: str, dataset: str, by: str, ledger: Ledger, expires: str | None
    ) -> Decision:
        proposal = self.proposal(digest)
        last_day = proposal.ethics_expires if expires is None else expires
        if not is_day(last_day) or last_day > proposal.ethics_expires or is_over(last_day, datetime.now(UTC)):
            raise UserError(
                f"a task cannot be approved until {last_day!r}",
                where=digest[:12],
                remedy=f"name a day from today to {proposal.ethics_expires}, when the ethics board's approval ends, or "
                "ask for a proposal under a new one",
            )
        decision = self._drafted(DecisionKind.APPROVE, proposal, by, dataset=dataset, cohort=cohort, expires=last_day)
        ledger.append(decision.entry())
        self._add(decision)
        return decision

    def _decline(self, kind: DecisionKind, digest: str, by: str, reason: str) -> Decision:
        _check_name(by)
        if not reason.strip() or len(reason) > _LONGEST:
            raise UserError(f"a reason has at most {_LONGEST} characters", remedy="give it by --reason")
        with self._locked():
            decision = self._drafted(kind, self.proposal(digest), by, reason=reason)
            self._add(decision)
        return decision

    def _drafted(self, kind: DecisionKind, proposal: Proposal, by: str, **fields: str) -> Decision:
        empty: dict[str, Any] = dict.fromkeys(("dataset", "cohort", "reason", "expires", "signature"), "")
        number = len(self.decisions(proposal.digest)) + 1
        said = {"kind": kind, "digest": proposal.digest, "proposal": proposal.terms, "by": by, "time": present()}
        return Decision(number=number, **(empty | said | fields)).signed(self._key)

    # ------------------------------------------------------------------------------------------------------- files

    def _file(self, digest: str, name: str) -> Path:
        if not _is_digest(digest):
            raise refusal("no task can have this digest", "a digest is 64 of the characters 0-9 and a-f")
        return self.folder / digest / name

    def _read_proposal(self, path: Path, digest: str) -> Proposal:
        try:
            with path.open("rb") as file:
                proposal = decode(file.read(MAX_BYTES + 1), Proposal)
        except (OSError, CodecError) as error:
            raise refusal("the proposal cannot be read", "bring back a copy of the file", str(path)) from error
        if proposal.digest != digest or not proposal.verifies(self._coordinator):
            raise _unsigned(str(path))
        return proposal

    def _add(self, decision: Decision) -> None:
        """Append a decision: by a new file in the old one's place, so that no reader meets half a line."""
        lines = [*self.decisions(decision.digest), decision]
        self._write(
            self._file(decision.digest, "decisions.jsonl"), b"".join(encode_decision(each) + b"\n" for each in lines)
        )

    def _write(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            write_atomically(path, content, durable=True, mode=0o600)
        except (OSError, MedFedError) as error:
            raise _unwritable(error, path) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time adds to the folder."""
        path = self.folder / ".lock"
        with contextlib.ExitStack() as held:
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                held.enter_context(alone(path))
            except OSError as error:
                raise _unwritable(error, path) from error
            yield


def _is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def _stamp(path: Path) -> _Stamp | None:
    """What changes when a file does; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refusal(f"the file cannot be looked at ({error.strerror})", "mend the folder", str(path)) from error
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _check_name(by: str) -> None:
    if not by.strip() or len(by) > _LONGEST or by.strip() == AUTO_APPROVE:
        raise UserError("a decision bears the name of the person who takes it", remedy="give it by --by")


def _unsigned(where: str = "") -> Refused:
    return refusal("the proposal is not signed by this site's coordinator", "ask the coordinator who sent it", where)


def _unwritable(error: OSError | MedFedError, path: Path) -> Refused:
    reason = error.cause if isinstance(error, MedFedError) else error.strerror or str(error)
    return refusal(f"it cannot be kept ({reason})", "free disk space or mend the folder's permissions", str(path))


def _not_approved(status: Status, reason: str = "") -> Refused:
    cause, remedy = _WHY[status]
    return refusal(f"{cause}: {reason}" if reason else cause, remedy)


_WHY = {
    Status.UNKNOWN: ("this task was never proposed to the site", "submit it: medfed submit TASK"),
    Status.WAITING: ("the site's steward has not decided on this task", "ask for it: medfed site approve DIGEST"),
    Status.REFUSED: ("the site's steward refused this task", "talk with the steward, who may approve it yet"),
    Status.WITHDRAWN: ("the site's steward withdrew the approval of this task", "talk with the steward"),
    Status.EXPIRED: (
        "the approval of this task has ended, or the ethics board's has",
        "ask the steward for a new one, or submit a new task under a new approval of the ethics board",
    ),
}
