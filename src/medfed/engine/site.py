"""The site's node: every request passes its gate, ``admit → run → release``, in the site's own process."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from medfed.core.codec import fingerprint
from medfed.core.errors import MedFedError, RefusalReason, Refused
from medfed.core.messages import Message
from medfed.core.steps import Release, Step, installed_step
from medfed.core.timings import Phase, Timings
from medfed.core.wire import Failure, Reply, Request
from medfed.engine.budget import SiteBudget
from medfed.engine.hiding import CONTRIBUTIONS, PHASES, Hiding
from medfed.engine.labels import SiteLabels
from medfed.engine.memory import SiteMemory
from medfed.engine.release import charge_release, with_noise
from medfed.engine.rows import SiteRows
from medfed.engine.session import SiteSession
from medfed.govern.entries import FailureEntry, RefusalEntry, ReleaseEntry, RepeatEntry
from medfed.govern.gate import Facts, admit, admit_protocol, check_release, describe_payload
from medfed.govern.ledger import Ledger
from medfed.models.catalogue import NetworkCache
from medfed.spec.policy import Policy
from medfed.spec.task import TaskSpec

T = TypeVar("T")

IN_THE_CLEAR = "none: in the clear"
"""How the ledger names a release that no cryptography protects."""


class Admitted(NamedTuple):
    """A request that passed the gate: its step, and what the gate decided on."""

    request: Request
    step: Step[Any, Any]
    facts: Facts
    policy: Policy


def _unconditionally() -> None:
    """A simulated site's task needs no approval."""


@dataclass(frozen=True)
class SiteNode:
    """One site of one run. :meth:`handle` is its only entrance, whatever the engine.

    :meth:`admit`, :meth:`run_step` and :meth:`release` are its parts, for a simulation that runs a step's batched
    twin at several sites between their gates.

    steps: names of the steps that the task's algorithm and the run itself may call here. rows: loads them on demand.
    policy: read at every request, so that a change holds at once. permit: raises Refused where the task's approval does
    not hold; asked before a step runs and again before its reply leaves. asked: records a request that the gate admits
    (a simulation records releases alone). hiding: where the task hides the parts of totals; nothing but what it hides,
    and names of categories, leaves then. sites: how many the task has, which share the noise that protects a whole
    site; 1: each adds all of it. labels: where the task trains on noisy ones. budget: what differentially private
    training is charged to; None: the run's own ledger. log: the site's own file for traces, which may quote values.
    """

    run: str
    site: str
    task: TaskSpec
    digest: str
    steps: frozenset[str]
    rows: Callable[[], SiteRows]
    policy: Callable[[], Policy]
    ledger: Ledger
    memory: SiteMemory
    networks: NetworkCache
    permit: Callable[[], None] = _unconditionally
    asked: Callable[[Request], None] | None = None
    hiding: Hiding | None = None
    sites: int = 1
    labels: SiteLabels | None = None
    budget: Callable[[], SiteBudget] | None = None
    log: Path | None = None
    timings: Timings = field(default_factory=Timings)

    def handle(self, request: Request) -> Reply:
        """Admit, run, release. Never raises: a refusal or a failure is a reply too, and in the ledger."""
        with self.timings[Phase.GATE]:
            if isinstance(request.message, PHASES):
                return self._explained(request, lambda: self._protocol(request))
            admitted = self.admit(request)
            return admitted if isinstance(admitted, Reply) else self.run_step(admitted)

    def admit(self, request: Request) -> Admitted | Reply:
        """What the gate lets run; or the reply, where it refuses or the request was answered before."""
        return self._explained(request, lambda: self._admit(request))

    def run_step(self, admitted: Admitted) -> Reply:
        """Run the step and release what it gives."""

        def run() -> Reply:
            session = self.session(admitted)
            body = self._timed_run(admitted, session)
            return self._release(admitted, body, session)

        return self._explained(admitted.request, run)

    def release(self, admitted: Admitted, body: Message, session: SiteSession) -> Reply:
        """Release what the step's batched twin gave for this site, or refuse to."""
        return self._explained(admitted.request, lambda: self._release(admitted, body, session))

    def session(self, admitted: Admitted) -> SiteSession:
        """What the step sees of the site. Raises MemoryLost where the request builds on what the site lacks."""
        with self.timings[Phase.CHECKPOINT]:
            self.memory.settle(admitted.request.settled)
            kept = self.memory.at(admitted.request.base)
        return SiteSession(self, admitted.request, kept, admitted.policy)

    def log_trace(self) -> None:
        """Write the present exception's trace to the site's log; a log that cannot be written keeps nothing back."""
        if self.log is None:
            return
        with contextlib.suppress(OSError):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{datetime.now(UTC).isoformat()}\n{traceback.format_exc()}\n")

    def _explained(self, request: Request, answer: Callable[[], T]) -> T | Reply:
        try:
            return answer()
        except Refused as refusal:
            return self._declined(request, RefusalEntry, refusal)
        except MedFedError as error:
            self.log_trace()
            return self._declined(request, FailureEntry, error)
        except Exception:
            self.log_trace()
            cause = "the step failed; its trace is in the site's own log"
            return self._declined(request, FailureEntry, MedFedError(cause))

    def _admit(self, request: Request) -> Admitted | Reply:
        if self.hiding is not None and installed_step(request.step).releases is not Release.LEVELS:
            raise Refused(f"the task promises that only {self.hiding.promise}", reason=RefusalReason.SECURE_SUM)
        admitted, stored = self._let_in(request)
        if stored is None:
            return admitted
        digest = describe_payload(stored.body).digest
        with self.timings[Phase.LEDGER]:
            self.ledger.append(RepeatEntry(request.run, request.round, request.call, request.step, digest))
        return stored

    def _let_in(self, request: Request) -> tuple[Admitted, Reply | None]:
        """A request that passes the gate, and the reply that was given to it before, if it was."""
        step, policy = installed_step(request.step), self.policy()
        self._check_addressed(request)
        if type(request.message) is not step.message:
            raise Refused(f"{step.name!r} takes another message than the one that came")
        self.permit()
        stored = self.memory.stored_reply(request)
        patients = self.rows().table.patients(step.split(request.message))
        facts = self._facts(request, patients, repeated=stored)
        admit(policy, request, step, facts)
        if self.asked is not None:
            self.asked(request)
        return Admitted(request, step, facts, policy), stored

    def _protocol(self, request: Request) -> Reply:
        """The answer to a question of a secure sum. What is summed passes the gate as any request, and is hidden."""
        message, hiding = request.message, self.hiding
        assert isinstance(message, PHASES)  # noqa: S101 - handle saw to it
        if hiding is None:
            raise Refused("the task forms its totals in the clear", reason=RefusalReason.SECURE_SUM)
        if not isinstance(message, CONTRIBUTIONS):
            self._check_addressed(request)
            self.permit()
            admit_protocol(self.policy(), request, self._facts(request, 0, repeated=None))
            if self.asked is not None:
                self.asked(request)
            return self._sent(request, request.base, hiding.answer(message), hiding.said)
        asked = replace(request, message=message.content)
        admitted, stored = self._let_in(asked)
        if admitted.step.releases is not Release.SUM:
            raise Refused(f"{request.step!r} gives nothing that is summed", reason=RefusalReason.SECURE_SUM)
        hiding.receive(request.step, message)
        if stored is None:
            session = self.session(admitted)
            body = self._timed_run(admitted, session)
            self.permit()
            check_release(admitted.policy, admitted.step, body, admitted.facts)
            with self.timings[Phase.CHECKPOINT]:
                stored = self.memory.record(asked, body, session.changes, fingerprint(body).bytes)
        return self._sent(request, stored.version, hiding.contribution(admitted.step, stored.body), hiding.hidden)

    def _check_addressed(self, request: Request) -> None:
        """Refuse what no honest coordinator sends; what a step reads depends on its message, so its type is exact."""
        if (request.site, request.run) != (self.site, self.run):
            raise Refused(f"the request is for another site or run than this one at {self.site!r}")
        if request.round < 0 or request.call < 0:
            raise Refused("rounds and calls are numbered from 0")

    def _timed_run(self, admitted: Admitted, session: SiteSession) -> Message:
        body: Message
        request, step, release = admitted.request, admitted.step, self.task.privacy.release
        charge_release(self, request, admitted.policy, step, session.classes)
        with self.timings[phase_of(step)]:
            body = step.run(session, request.message)
            return with_noise(body, step, release, session.classes)

    def _release(self, admitted: Admitted, body: Message, session: SiteSession) -> Reply:
        request, step = admitted.request, admitted.step
        self.permit()
        sent = session.compressed(body) if step.releases is Release.SUM else body
        check_release(admitted.policy, step, body, admitted.facts, sent)
        self._enter_release(request, step.releases, sent, IN_THE_CLEAR)
        with self.timings[Phase.CHECKPOINT]:
            return self.memory.record(request, sent, session.changes, fingerprint(sent).bytes)

    def _sent(self, request: Request, version: int, body: Message, protection: str) -> Reply:
        """The reply with what leaves in a secure sum, once it is in the ledger."""
        self._enter_release(request, Release.SUM, body, protection)
        return Reply(request.run, self.site, request.round, request.call, version, request.digest(), body)

    def _enter_release(self, request: Request, kind: Release, body: Message, protection: str) -> None:
        payload = describe_payload(body)
        entry = ReleaseEntry(
            request.run,
            request.round,
            request.call,
            request.step,
            kind,
            payload.digest,
            payload.shapes,
            payload.bytes,
            protection,
        )
        with self.timings[Phase.LEDGER]:
            self.ledger.release(entry)

    def _facts(self, request: Request, patients: int, *, repeated: Reply | None) -> Facts:
        """What the gate decides on; a repeated request does not count twice against the run's limits."""
        again = fingerprint(repeated.body).bytes if repeated else 0
        return Facts(
            task_digest=self.digest,
            task_type=self.task.task_type,
            algorithm=self.task.federation.strategy.name,
            algorithm_steps=self.steps,
            patients=patients,
            request_bytes=fingerprint(request.message).bytes,
            requests_so_far=self.memory.requests - (repeated is not None),
            released_bytes_so_far=self.memory.released_bytes - again,
            now=datetime.now(UTC),
        )

    def _declined(self, request: Request, kind: type[RefusalEntry] | type[FailureEntry], error: MedFedError) -> Reply:
        """A Failure in place of a reply; memory stays as it was, and an entry that cannot be written is logged."""
        code = str(error.reason) if isinstance(error, Refused) else error.code
        try:
            self.ledger.append(kind(self.run, request.round, request.call, request.step, code, error.cause))
        except MedFedError:
            self.log_trace()
        sentence = f"{error.cause} ({error.remedy})" if error.remedy else error.cause
        failure = Failure(error.code, sentence, request.step)
        self.memory.count_failure()
        return Reply(request.run, self.site, request.round, request.call, request.base, request.digest(), failure)


def phase_of(step: Step[Any, Any]) -> Phase:
    """What a step's time is spent on, where no inner phase says otherwise."""
    match step.run.__module__.split("."):
        case ["medfed", "data", *_]:
            return Phase.DATA
        case ["medfed", "evaluate", *_]:
            return Phase.EVALUATE
        case _:
            return Phase.TRAIN
