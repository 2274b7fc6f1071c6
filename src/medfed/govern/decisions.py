"""What a site's steward decided on a proposal: one signed line of JSON each, in ``decisions.jsonl``.

A line has its number in it, so that lines can be neither exchanged nor repeated; and the task's digest, so that a file
can not be put beside another proposal.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from medfed.core.errors import Refused
from medfed.govern.entries import OFFICE, CanonicalForm, DecisionEntry, expect, parse_object
from medfed.govern.keys import SigningKey, VerifyKey
from medfed.govern.proposals import refusal

_DOMAIN = b"medfed decision 1\0"


class DecisionKind(enum.StrEnum):
    """What was decided."""

    APPROVE = "approve"
    REFUSE = "refuse"
    WITHDRAW = "withdraw"


@dataclass(frozen=True)
class Decision:
    """One decision on a task.

    number: 1 for the first on this task. digest: of the task. proposal: SHA-256 of the terms that were decided on.
    dataset, cohort: the rows that are approved, by the dataset's name and their digest (empty but for an approval).
    by: who decided. reason: why (empty for an approval). expires: the approval's last day, ISO, UTC (empty but for an
    approval). time: when, ISO, UTC. signature: Ed25519, in hex, of the site.
    """

    number: int
    kind: DecisionKind
    digest: str
    proposal: str
    dataset: str
    cohort: str
    by: str
    reason: str
    expires: str
    time: str
    signature: str

    def signed(self, key: SigningKey) -> Decision:
        """The decision under the site's signature."""
        return replace(self, signature=key.sign(self._content).hex())

    def verifies(self, key: VerifyKey) -> bool:
        """Whether the owner of this key signed the decision as it is."""
        try:
            signature = bytes.fromhex(self.signature)
        except ValueError:
            return False
        return signature.hex() == self.signature and key.verifies(signature, self._content)

    def entry(self) -> DecisionEntry:
        """The decision as the site's ledger records it."""
        return DecisionEntry(OFFICE, self.digest, self.kind.value, self.by, self.reason, self.cohort)

    @property
    def _content(self) -> bytes:
        return _DOMAIN + encode_decision(replace(self, signature=""))


def encode_decision(decision: Decision) -> bytes:
    """The decision's line, without its newline."""
    return _FORM.encode(decision)


def read_decisions(path: Path, digest: str, key: VerifyKey) -> tuple[Decision, ...]:
    """All decisions on a task, in order; none where there is no file.

    Raises Refused, located at file and line, where one of them is not as the site signed it: none is skipped.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise refusal(f"the decisions cannot be read ({error.strerror})", "mend its permissions", str(path)) from error
    *lines, rest = content.split(b"\n")
    found = tuple(_verified(path, number, line, digest, key) for number, line in enumerate(lines, start=1))
    if rest or not found:
        raise _damaged(path, len(found) + 1, "it is not a whole line")
    return found


def _verified(path: Path, number: int, line: bytes, digest: str, key: VerifyKey) -> Decision:
    try:
        decision = _decoded(line)
    except ValueError as error:
        raise _damaged(path, number, str(error)) from None
    if (decision.number, decision.digest) != (number, digest):
        raise _damaged(path, number, "it is another task's decision, or not this one in order")
    if not decision.verifies(key):
        raise _damaged(path, number, "the site did not sign it")
    return decision


def _decoded(line: bytes) -> Decision:
    """The decision of a line. Raises ValueError where :func:`encode_decision` would not write just that."""
    found = parse_object(line)
    if found.keys() != _TYPES.keys():
        raise ValueError(f"a decision has the fields {', '.join(sorted(_TYPES))}")
    decision = Decision(**{name: expect(_TYPES[name], found[name]) for name in _TYPES})
    if encode_decision(decision) != line:
        raise ValueError("it is not in canonical form")
    return decision


def _damaged(path: Path, number: int, why: str) -> Refused:
    return refusal(
        f"this decision cannot be trusted: {why}; until it is mended, nothing of this task is approved",
        "find out who changed the file, and bring back a copy of it",
        f"{path}:{number}",
    )


_TYPES: dict[str, Any] = {field.name: get_type_hints(Decision)[field.name] for field in fields(Decision)}
_FORM = CanonicalForm(_TYPES)
