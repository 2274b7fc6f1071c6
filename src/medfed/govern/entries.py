"""Ledger entries: one frozen dataclass for each kind, and their canonical line of JSON.

A line holds ``index``, ``time`` (UTC, ISO 8601), ``kind``, ``previous`` (the leaf hash of the line before it,
in hex; empty for the first) and the entry's own fields: keys sorted, no spaces, UTF-8, a newline at the end.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import time
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring
from operator import attrgetter
from types import MappingProxyType
from typing import Any, ClassVar

from medfed.core.steps import Release


class EntryKind(enum.StrEnum):
    """What an entry records."""

    OPENED = "opened"
    APPROVAL = "approval"
    RELEASE = "release"
    REFUSAL = "refusal"
    FAILURE = "failure"
    REPEAT = "repeat"
    WITNESS = "witness"
    POLICY = "policy"
    RESUMED = "resumed"
    CLOSED = "closed"
    PROPOSAL = "proposal"
    DECISION = "decision"
    REQUEST = "request"
    SPEND = "spend"


OFFICE = "office"
"""The run of entries outside runs: proposals, decisions, policy changes and requests that belong to no run."""


@dataclass(frozen=True)
class OpenedEntry:
    """The run began: SHA-256 of its resolved task, and the version of MedFed at this party."""

    KIND: ClassVar = EntryKind.OPENED
    run: str
    task: str
    version: str


@dataclass(frozen=True)
class ApprovalEntry:
    """The task of this digest was approved, and by whom."""

    KIND: ClassVar = EntryKind.APPROVAL
    run: str
    task: str
    approver: str


@dataclass(frozen=True)
class PolicyEntry:
    """The policy in force from here on, as canonical JSON."""

    KIND: ClassVar = EntryKind.POLICY
    run: str
    policy: str


@dataclass(frozen=True)
class ReleaseEntry:
    """A reply that left: what kind, SHA-256 and size of its encoding, its fields' shapes, its protection."""

    KIND: ClassVar = EntryKind.RELEASE
    run: str
    round: int
    call: int
    step: str
    release: Release
    digest: str
    shapes: tuple[str, ...]
    bytes: int
    protection: str


@dataclass(frozen=True)
class RefusalEntry:
    """A request that the site's gate refused."""

    KIND: ClassVar = EntryKind.REFUSAL
    run: str
    round: int
    call: int
    step: str
    code: str
    sentence: str


@dataclass(frozen=True)
class FailureEntry:
    """A request that failed at the site."""

    KIND: ClassVar = EntryKind.FAILURE
    run: str
    round: int
    call: int
    step: str
    code: str
    sentence: str


@dataclass(frozen=True)
class RepeatEntry:
    """A request that came again; the stored reply of this digest left again."""

    KIND: ClassVar = EntryKind.REPEAT
    run: str
    round: int
    call: int
    step: str
    digest: str


@dataclass(frozen=True)
class WitnessEntry:
    """Another party's signed head, as this party saw it."""

    KIND: ClassVar = EntryKind.WITNESS
    run: str
    round: int
    party: str
    size: int
    root: str


@dataclass(frozen=True)
class ResumedEntry:
    """Writing went on after a stop: the bytes of an unfinished last line that were cut off (0: none)."""

    KIND: ClassVar = EntryKind.RESUMED
    cut: int


@dataclass(frozen=True)
class ClosedEntry:
    """The run ended, and how."""

    KIND: ClassVar = EntryKind.CLOSED
    run: str
    status: str


@dataclass(frozen=True)
class ProposalEntry:
    """A task of this digest was proposed: why, on which legal basis, under which approval of an ethics board."""

    KIND: ClassVar = EntryKind.PROPOSAL
    run: str
    task: str
    purpose: str
    legal_basis: str
    ethics_id: str


@dataclass(frozen=True)
class DecisionEntry:
    """A steward approved, refused or withdrew a task; ``cohort`` is the SHA-256 of the rows approved (empty: none)."""

    KIND: ClassVar = EntryKind.DECISION
    run: str
    task: str
    decision: str
    by: str
    reason: str
    cohort: str


@dataclass(frozen=True)
class RequestEntry:
    """A request that came, whatever became of it: SHA-256 of its encoding."""

    KIND: ClassVar = EntryKind.REQUEST
    run: str
    round: int
    call: int
    step: str
    digest: str


@dataclass(frozen=True)
class SpendEntry:
    """Steps of differentially private training that a request takes from a dataset's budget, before it computes.

    run: that of the ledger. spender, round, call, step, request: the run that trains, and its request with the SHA-256
    of its encoding. task, title: the task's digest and name. source: a keyed digest of where the rows come from.
    mark, version: entries of the run's own ledger, and the newest version of its memory, before. mechanism,
    noise_multiplier, sampling_rate, steps: as in :class:`medfed.core.spending.Spend`, numbers as Python writes them.
    """

    KIND: ClassVar = EntryKind.SPEND
    run: str
    spender: str
    round: int
    call: int
    step: str
    request: str
    task: str
    title: str
    dataset: str
    source: str
    mark: int
    version: int
    mechanism: str
    noise_multiplier: str
    sampling_rate: str
    steps: int


Entry: typing.TypeAlias = (
    OpenedEntry
    | ApprovalEntry
    | PolicyEntry
    | ReleaseEntry
    | RefusalEntry
    | FailureEntry
    | RepeatEntry
    | WitnessEntry
    | ResumedEntry
    | ClosedEntry
    | ProposalEntry
    | DecisionEntry
    | RequestEntry
    | SpendEntry
)

_BY_KIND: dict[EntryKind, type[Any]] = {kind.KIND: kind for kind in typing.get_args(Entry)}
_PLACE: dict[str, type] = {"index": int, "time": str, "previous": str}
_TYPES: dict[type[Any], dict[str, Any]] = {
    kind: {field.name: typing.get_type_hints(kind)[field.name] for field in dataclasses.fields(kind)}
    for kind in _BY_KIND.values()
}


@dataclass(frozen=True)
class Recorded:
    """An entry with its place in the ledger."""

    index: int
    time: str
    previous: str
    entry: Entry


class CanonicalForm:
    """Canonical JSON of objects of one kind: sorted keys, no spaces, UTF-8 (a lone surrogate, which UTF-8 lacks, is
    escaped). It is written once an entry of every site, so how is worked out once a kind.

    fields: key → the type of its values, of those that :func:`expect` knows. places: key → where an object has the
    value, if not in the attribute of that name.
    """

    def __init__(self, fields: Mapping[str, Any], places: Mapping[str, str] = MappingProxyType({})) -> None:
        names = sorted(fields)
        self._values = attrgetter(*(places.get(name, name) for name in names))
        self._keys = [f'{"," if k else "{"}"{name}":' for k, name in enumerate(names)]
        self._writers = [_writer(fields[name]) for name in names]

    def encode(self, value: object) -> bytes:
        """The bytes of one object."""
        found = zip(self._keys, self._writers, self._values(value), strict=True)
        return ("".join([key + write(each) for key, write, each in found]) + "}").encode("utf-8", "backslashreplace")


def _writer(hint: Any) -> Callable[[Any], str]:
    """How values of a type are written."""
    if typing.get_origin(hint) is tuple:
        write = _writer(typing.get_args(hint)[0])
        return lambda values: f"[{','.join([write(each) for each in values])}]"
    return int.__repr__ if hint is int else encode_basestring


def now() -> str:
    """The time in UTC, ISO 8601, to the microsecond."""
    second, microsecond = divmod(time.time_ns() // 1000, 10**6)
    return f"{_iso(second)}.{microsecond:06}+00:00"


@lru_cache(maxsize=1)
def _iso(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


_FORMS = {
    kind: CanonicalForm(
        types | _PLACE | {"kind": EntryKind}, {name: f"entry.{name}" for name in types} | {"kind": "entry.KIND"}
    )
    for kind, types in _TYPES.items()
}


def encode_entry(recorded: Recorded) -> bytes:
    """The entry's line, without its newline: the bytes that its leaf hash covers."""
    return _FORMS[type(recorded.entry)].encode(recorded)


def decode_entry(line: bytes) -> Recorded:
    """The entry of a line. Raises ValueError where :func:`encode_entry` would not write just that."""
    fields = parse_object(line)
    try:
        kind = _BY_KIND[EntryKind(fields.pop("kind"))]
        place = {name: expect(hint, fields.pop(name)) for name, hint in _PLACE.items()}
    except KeyError as error:
        raise ValueError(f"the field {error} is absent") from None
    hints = _TYPES[kind]
    if fields.keys() != hints.keys():
        raise ValueError(f"a {kind.KIND} entry has the fields {', '.join(sorted(hints))}")
    recorded = Recorded(**place, entry=kind(**{name: expect(hints[name], fields[name]) for name in hints}))
    if encode_entry(recorded) != line:
        raise ValueError("it is not in canonical form")
    return recorded


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object in a line. Raises ValueError where there is none."""
    try:
        fields = json.loads(line.decode())
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("it is not a JSON object")
    return fields


def expect(hint: Any, value: Any) -> Any:
    """The JSON value as the field's type. Raises ValueError for any other."""
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        (item, *_ellipsis) = typing.get_args(hint)
        return tuple(expect(item, each) for each in value)
    if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
        return hint(value)
    if type(value) is not hint:
        raise ValueError(f"a value of type {getattr(hint, '__name__', hint)} was expected")
    return value
