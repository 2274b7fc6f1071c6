"""Ledger entries: one frozen dataclass for each kind, and their canonical line of JSON.

A line holds ``index``, ``time`` (UTC, ISO 8601), ``kind``, ``previous`` (the leaf hash of the line before it,
in hex; empty for the first) and the entry's own fields: keys sorted, no spaces, UTF-8, a newline at the end.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import typing
from dataclasses import dataclass
from datetime import UTC, datetime
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


_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical(fields: dict[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8 (a lone surrogate, which UTF-8 lacks, is escaped)."""
    return _ENCODE(fields).encode("utf-8", "backslashreplace")


def now() -> str:
    """The time in UTC, ISO 8601, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def encode_entry(recorded: Recorded) -> bytes:
    """The entry's line, without its newline: the bytes that its leaf hash covers."""
    entry = recorded.entry
    fields = {name: getattr(entry, name) for name in _TYPES[type(entry)]}
    fields["index"] = recorded.index
    fields["time"] = recorded.time
    fields["kind"] = entry.KIND
    fields["previous"] = recorded.previous
    return canonical(fields)


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
