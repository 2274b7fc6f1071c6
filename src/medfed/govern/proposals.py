"""Proposals: what a coordinator asks a hospital to take part in, signed, in a form that a steward can be shown."""

from __future__ import annotations

import enum
import hashlib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any

import numpy as np

from medfed.core.codec import encode
from medfed.core.errors import CodecError, RefusalReason, Refused, TaskError, UserError
from medfed.core.messages import Message, additive_fields, field_names
from medfed.core.steps import Release, Step
from medfed.govern.entries import now
from medfed.govern.keys import SigningKey, VerifyKey
from medfed.spec.canonical import dump_task, task_digest
from medfed.spec.document import read_value
from medfed.spec.loading import TaskFile, task_of
from medfed.spec.task import TaskSpec

MAX_BYTES = 2**20
"""The largest encoded proposal that a site files."""

_LONGEST = {"purpose": 2000, "legal_basis": 500, "ethics_id": 200}
_DOMAIN = b"medfed proposal 1\0"


@dataclass(frozen=True)
class ProposedRelease(Message, wire="govern.proposed_release"):
    """What one step would release: the kind, and each field of the reply as ``name: what it is, and its bound``."""

    step: str
    kind: Release
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Proposal(Message, wire="govern.proposal"):
    """A task, why it is asked for, and what it would release.

    task: the resolved task as YAML. digest: its :func:`~medfed.spec.canonical.task_digest`. ethics_expires: the last
    day (ISO, UTC) of the ethics board's approval. steps: names of all steps that may be asked for. proposed: when, ISO,
    UTC. signature: Ed25519, in hex, of the coordinator.
    """

    task: str
    digest: str
    purpose: str
    legal_basis: str
    ethics_id: str
    ethics_expires: str
    steps: tuple[str, ...]
    releases: tuple[ProposedRelease, ...]
    rounds: int
    proposed: str
    signature: str

    @classmethod
    def sign(
        cls,
        key: SigningKey,
        spec: TaskSpec,
        steps: Iterable[Step[Any, Any]],
        *,
        purpose: str,
        legal_basis: str,
        ethics_id: str,
        ethics_expires: str,
    ) -> Proposal:
        """A proposal signed now. Raises UserError where a site would refuse what it says for its form."""
        releases = proposed_releases(steps)
        draft = cls(
            task=dump_task(spec),
            digest=task_digest(spec),
            purpose=purpose,
            legal_basis=legal_basis,
            ethics_id=ethics_id,
            ethics_expires=ethics_expires,
            steps=tuple(release.step for release in releases),
            releases=releases,
            rounds=spec.federation.total_rounds,
            proposed=now(),
            signature="",
        )
        proposal = replace(draft, signature=key.sign(draft._signed).hex())
        if (fault := _fault(proposal)) is not None:
            raise UserError(fault, where="proposal", remedy="mend it and submit the task anew")
        return proposal

    def verifies(self, key: VerifyKey) -> bool:
        """Whether the owner of this key signed the proposal as it is."""
        try:
            signature = bytes.fromhex(self.signature)
            return signature.hex() == self.signature and key.verifies(signature, self._signed)
        except (ValueError, CodecError):
            return False

    @cached_property
    def terms(self) -> str:
        """SHA-256, in hex, of what is proposed: of all but when it was, and the signature."""
        return hashlib.sha256(encode(replace(self, proposed="", signature=""))).hexdigest()

    def task_file(self) -> TaskFile:
        """The task. Raises TaskError where the text is none, or too long to be looked at."""
        if len(self.task) > MAX_BYTES:
            raise TaskError(f"the proposal's task is larger than {MAX_BYTES // 2**20} MiB", remedy="propose less")
        return task_of(read_value(self.task, "the proposal's task"))

    @property
    def _signed(self) -> bytes:
        return _DOMAIN + encode(replace(self, signature=""))


def proposed_releases(steps: Iterable[Step[Any, Any]]) -> tuple[ProposedRelease, ...]:
    """What these steps would release, sorted by the steps' names."""
    by_name = {step.name: step for step in steps}
    return tuple(ProposedRelease(name, step.releases, _fields(step)) for name, step in sorted(by_name.items()))


def check_proposal(proposal: Proposal, coordinator: VerifyKey) -> None:
    """Raise Refused unless the coordinator signed the proposal, its task has its digest, and its form is right."""
    if not proposal.verifies(coordinator):
        raise refusal("the proposal is not signed by this site's coordinator", "ask the coordinator who sent it")
    if (fault := _fault(proposal)) is not None:
        raise refusal(fault, "mend the proposal and submit the task anew")
    try:
        spec = proposal.task_file().spec
    except TaskError as error:
        cause = f"the proposal holds no task that this site can read ({error.cause})"
        raise refusal(cause, "use the same version of MedFed at both ends") from error
    if task_digest(spec) != proposal.digest or dump_task(spec) != proposal.task:
        raise refusal("the proposal's digest is not that of its task", "submit the task anew")
    start, distillation = spec.model.pretrained, spec.federation.distillation
    paths = (
        *((start.path, start.run) if start is not None else ()),
        *((distillation.teacher.run,) if distillation is not None else ()),
    )
    if any(path is not None for path in paths):
        raise refusal(
            "the task names weights by a path, and a site opens no file for a coordinator",
            "submit it by medfed submit, which keeps the file and names its digest",
        )
    if spec.federation.total_rounds != proposal.rounds:
        raise refusal("the proposal names another number of rounds than its task", "submit the task anew")


def check_releases(proposal: Proposal, steps: Iterable[Step[Any, Any]]) -> None:
    """Raise Refused unless the proposal says just what these steps, those installed here, would release.

    So the steward is told what this site's own software does, not what the coordinator says that it does.
    """
    installed = proposed_releases(steps)
    if proposal.releases != installed or proposal.steps != tuple(release.step for release in installed):
        raise refusal(
            "the proposal says that other things would be released than this site's software would release",
            "use the same version of MedFed at both ends, then submit the task anew",
        )


def is_over(day: str, moment: datetime) -> bool:
    """Whether a day (ISO, in UTC) is over at a moment. Raises ValueError where this has no time zone."""
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone")
    return moment.astimezone(UTC).date() > date.fromisoformat(day)


def is_day(text: str) -> bool:
    """Whether a text is a day in the form 2027-06-30."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def refusal(cause: str, remedy: str, where: str = "") -> Refused:
    """The error for a task that is not, or not properly, approved."""
    return Refused(cause, remedy=remedy, where=where, reason=RefusalReason.TASKS)


def _fault(proposal: Proposal) -> str | None:
    """What is wrong with the form of a proposal."""
    for name, longest in _LONGEST.items():
        text: str = getattr(proposal, name)
        if not text.strip() or len(text) > longest:
            return f"the proposal's {name} has to be a text of at most {longest} characters"
    if not is_day(proposal.ethics_expires):
        return "the end of the ethics board's approval has to be a day in the form 2027-06-30"
    if len(encode(proposal)) > MAX_BYTES:
        return f"the proposal is larger than {MAX_BYTES // 2**20} MiB"
    return None


# --------------------------------------------------------------------------------------- what a reply consists of


def _fields(step: Step[Any, Any]) -> tuple[str, ...]:
    hints = typing.get_type_hints(step.reply)
    bounds = additive_fields(step.reply) if step.releases is Release.SUM else {}
    return tuple(
        f"{name}: {_kind(hints[name])}" + (f", at most {bounds[name].bound:.3g} in size" if name in bounds else "")
        for name in field_names(step.reply)
    )


_KINDS: dict[Any, str] = {int: "whole number", float: "number", bool: "yes or no", str: "text", bytes: "bytes"}


def _kind(hint: Any) -> str:
    """The type of a field in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if (alias := getattr(origin, "__value__", None)) is not None:  # NumPy from 2.5 on declares NDArray by `type`
        return _kind(alias[arguments])
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_kind(member) for member in arguments if member is not types.NoneType) + ", or nothing"
    if origin is tuple:
        return f"list of {_kind(arguments[0])}"
    if origin is np.ndarray:
        whole = np.dtype(typing.get_args(arguments[1])[0]).kind in "iub"
        return "array of whole numbers" if whole else "array of numbers"
    if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
        return f"one of {', '.join(hint)}"
    if isinstance(hint, type) and issubclass(hint, Message) and hint is not Message:
        inner = typing.get_type_hints(hint)
        return f"({'; '.join(f'{name}: {_kind(inner[name])}' for name in field_names(hint))})"
    return _KINDS.get(hint, "anything")
