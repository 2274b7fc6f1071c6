"""What travels between a coordinator and a site: a request, and its reply."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from medfed.core.codec import fingerprint
from medfed.core.messages import Message


@dataclass(frozen=True, eq=False)
class Request(Message, wire="request"):
    """One message for one step at one site.

    run: id of the run, kept when it is resumed.
    task: SHA-256 of the resolved task, by which the site finds what was approved.
    round, call: the round (0: preparation) and the call within it; together they number the request.
    base: the version of the site's memory on which the request builds, as the last reply told it (0: none yet).
    settled: the version that the coordinator has checkpointed; the site may forget how it got there.
    """

    run: str
    task: str
    site: str
    round: int
    call: int
    base: int
    settled: int
    step: str
    message: Message

    def digest(self) -> str:
        """SHA-256 of what is asked; ``settled`` only tells what may be forgotten, and is left out."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        numbers = str(self.round), str(self.call), str(self.base)
        content = self.run, self.task, self.site, self.step, *numbers, fingerprint(self.message).sha256
        return hashlib.sha256("\0".join(content).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Reply(Message, wire="reply"):
    """A site's answer to the request of the same run, round and call; ``body`` may be a :class:`Failure`.

    version: the version of the site's memory after the request. request: digest of the request it answers, since
    numbers alone do not tell a late reply to an abandoned request apart.
    """

    run: str
    site: str
    round: int
    call: int
    version: int
    request: str
    body: Message


@dataclass(frozen=True, eq=False)
class Failure(Message, wire="failure"):
    """Why a site did not do what was asked: a code, a sentence that quotes no patient's value, and the step.

    The trace, which may quote values, stays in the site's own log.
    """

    code: str
    sentence: str
    step: str
