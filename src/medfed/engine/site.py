"""The site's node: every request passes its gate, ``admit → run → release``, in the site's own process."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medfed.core.codec import encode
from medfed.core.errors import MedFedError, Refused
from medfed.core.messages import Message
from medfed.core.steps import Step, installed_step
from medfed.core.wire import Failure, Reply, Request
from medfed.data.table import SiteTable
from medfed.engine.memory import SiteMemory
from medfed.engine.session import Encoded, SiteSession
from medfed.govern.entries import FailureEntry, RefusalEntry, ReleaseEntry, RepeatEntry
from medfed.govern.gate import Facts, admit, check_release, describe_payload
from medfed.govern.ledger import Ledger
from medfed.models.catalogue import NetworkCache
from medfed.spec.policy import Policy
from medfed.spec.task import TaskSpec

IN_THE_CLEAR = "none: in the clear"
"""How the ledger names a release that no cryptography protects."""


@dataclass(frozen=True)
class SiteNode:
    """One site of one run. :meth:`handle` is its only entrance, whatever the engine.

    steps: names of the steps that the task's algorithm and the run itself may call here. policy: read at every
    request, so that a change holds at once. log: the site's own file for traces, which may quote values.
    """

    run: str
    site: str
    task: TaskSpec
    digest: str
    steps: frozenset[str]
    table: SiteTable
    policy: Callable[[], Policy]
    ledger: Ledger
    memory: SiteMemory
    networks: NetworkCache
    log: Path | None = None
    encoded: Encoded = field(default_factory=Encoded)

    def handle(self, request: Request) -> Reply:
        """Admit, run, release. Never raises: a refusal or a failure is a reply too, and in the ledger."""
        try:
            return self._answer(request)
        except Refused as refusal:
            return self._declined(request, RefusalEntry, refusal)
        except MedFedError as error:
            self._log_trace()
            return self._declined(request, FailureEntry, error)
        except Exception:
            self._log_trace()
            cause = "the step failed; its trace is in the site's own log"
            return self._declined(request, FailureEntry, MedFedError(cause))

    def _answer(self, request: Request) -> Reply:
        step, policy = installed_step(request.step), self.policy()
        self._check_addressed(request, step)
        stored = self.memory.stored_reply(request)
        facts = self._facts(request, step, repeated=stored)
        admit(policy, request, step, facts)
        if stored is not None:
            digest = describe_payload(stored.body).digest
            self.ledger.append(RepeatEntry(request.run, request.round, request.call, step.name, digest))
            return stored
        self.memory.settle(request.settled)
        kept = self.memory.at(request.base)
        session = SiteSession(self, request, kept, policy)
        body = step.run(session, request.message)
        check_release(policy, step, body, facts)
        return self._release(request, step, body, session.changes)

    def _check_addressed(self, request: Request, step: Step[Any, Any]) -> None:
        """Refuse what no honest coordinator sends; what a step reads depends on its message, so its type is exact."""
        if (request.site, request.run) != (self.site, self.run):
            raise Refused(f"the request is for another site or run than this one at {self.site!r}")
        if type(request.message) is not step.message:
            raise Refused(f"{step.name!r} takes another message than the one that came")
        if request.round < 0 or request.call < 0:
            raise Refused("rounds and calls are numbered from 0")

    def _release(self, request: Request, step: Step[Any, Any], body: Message, changes: tuple[Message, ...]) -> Reply:
        payload = describe_payload(body)
        entry = ReleaseEntry(
            request.run,
            request.round,
            request.call,
            step.name,
            step.releases,
            payload.digest,
            payload.shapes,
            payload.bytes,
            IN_THE_CLEAR,
        )
        self.ledger.append(entry)
        return self.memory.record(request, body, changes, payload.bytes)

    def _facts(self, request: Request, step: Step[Any, Any], *, repeated: Reply | None) -> Facts:
        """What the gate decides on; a repeated request does not count twice against the run's limits."""
        again = len(encode(repeated.body)) if repeated else 0
        return Facts(
            task_digest=self.digest,
            task_type=self.task.task_type,
            algorithm=self.task.federation.strategy.name,
            algorithm_steps=self.steps,
            patients=self.table.patients(step.split(request.message)),
            request_bytes=len(encode(request)),
            requests_so_far=self.memory.requests - (repeated is not None),
            released_bytes_so_far=self.memory.released_bytes - again,
        )

    def _declined(self, request: Request, kind: type[RefusalEntry] | type[FailureEntry], error: MedFedError) -> Reply:
        """A Failure in place of a reply; memory stays as it was, and an entry that cannot be written is logged."""
        code = str(error.reason) if isinstance(error, Refused) else error.code
        try:
            self.ledger.append(kind(request.run, request.round, request.call, request.step, code, error.cause))
        except MedFedError:
            self._log_trace()
        sentence = f"{error.cause} ({error.remedy})" if error.remedy else error.cause
        failure = Failure(error.code, sentence, request.step)
        self.memory.count_failure()
        return Reply(request.run, self.site, request.round, request.call, request.base, request.digest(), failure)

    def _log_trace(self) -> None:
        """Write the trace to the site's log; a log that cannot be written keeps no reply from leaving."""
        if self.log is None:
            return
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{datetime.now(UTC).isoformat()}\n{traceback.format_exc()}\n")
