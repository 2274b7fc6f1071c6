"""What became of each source file, kept at the site alone: it names the sources, whose names can name patients."""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from medfed.core.errors import UserError


class Action(enum.StrEnum):
    """What became of a file; a double is the same as another, whose copy stands for both."""

    COPIED = "copied"
    DOUBLE = "double"
    QUARANTINED = "quarantined"
    REFUSED = "refused"


@dataclass(frozen=True)
class Line:
    """One source file, by its path below the source. digest: a keyed hash of its content.

    It is "" where the file could not be read, or is not DICOM. reason: the code of a refusal or a suspicion. copy: the
    copy's name, where there is one, and size its bytes. looked_at: a person looked at its pixels. deeds, texts: counts
    as in :class:`medfed.data.deidentify.tally.Tally`.
    """

    source: str
    digest: str
    action: Action
    reason: str = ""
    copy: str = ""
    size: int = 0
    looked_at: bool = False
    deeds: dict[str, int] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)


_OWNING = (Action.COPIED, Action.QUARANTINED)


class Journal:
    """``files.jsonl`` of the private folder: appended line by line, so that a killed run is gone on with."""

    def __init__(self, path: Path) -> None:
        """Raises UserError where the file cannot be read or written."""
        try:
            self._lines = dict[str, Line]()
            self._owners = dict[str, Line]()
            self._looked_at = set[tuple[str, str]]()
            for line in _read(path):
                self._take(line)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            self._file = os.fdopen(descriptor, "a+b")
            self._end_half_a_line()
        except OSError as error:
            raise _unwritable(path, error) from error
        self._path = path

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def last(self, source: str) -> Line | None:
        """What was last written of a source file whose content could be read."""
        return self._lines.get(source)

    def owner(self, copy: str) -> Line | None:
        """The source file that a copy, or a file in quarantine, was made from, and still is as far as is known."""
        found = self._owners.get(copy)
        return found if found is not None and self._lines.get(found.source) is found else None

    def suspected(self) -> Iterator[Line]:
        """Files that wait for a person's look, and those that a person has looked at."""
        return (line for line in self._lines.values() if line.action is Action.QUARANTINED or line.looked_at)

    def was_looked_at(self, copy: str, digest: str) -> bool:
        """Whether a person ever looked at the pixels of this copy, made from this content."""
        return (copy, digest) in self._looked_at

    def append(self, line: Line) -> None:
        """Write a line, and hand it to the operating system at once. Raises UserError where the disk is full."""
        self._take(line)
        try:
            self._file.write(json.dumps(asdict(line), ensure_ascii=True).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _take(self, line: Line) -> None:
        if line.digest:
            self._lines[line.source] = line
        if line.action in _OWNING:
            self._owners[line.copy] = line
        if line.looked_at:
            self._looked_at.add((line.copy, line.digest))

    def _end_half_a_line(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        if size:
            self._file.seek(size - 1)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")


def _read(path: Path) -> Iterator[Line]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for raw in file:
            try:
                read = json.loads(raw)
                yield Line(**{**read, "action": Action(read["action"])})
            except (ValueError, TypeError, KeyError):  # half a line of a run that was killed: its file is done again
                continue


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"the list of files cannot be kept ({error.strerror})",
        where=str(path),
        remedy="free disk space or mend the folder's permissions, then give the same command again",
    )
