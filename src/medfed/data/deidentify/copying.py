"""The de-identification of a folder: each file becomes a clean copy, waits in quarantine, or is refused."""

from __future__ import annotations

import json
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from medfed.core.errors import RunFolderError, UserError
from medfed.core.files import write_atomically
from medfed.data.deidentify.attributes import Rules
from medfed.data.deidentify.dates import EARLIEST, LATEST
from medfed.data.deidentify.folders import Folders
from medfed.data.deidentify.instance import Copy, deidentify
from medfed.data.deidentify.journal import Action, Journal, Line
from medfed.data.deidentify.profile import EDITION
from medfed.data.deidentify.reading import HEAD, is_dicom
from medfed.data.deidentify.refusals import Refusal
from medfed.data.deidentify.summary import Settings, Summary
from medfed.version import __version__

EVERYTHING = "all"
"""The name by which all quarantined files are accepted."""
RULES = 3
"""Changes with the rules: files done by other rules are not gone on with."""
_LARGEST = 4 << 30
"""Bytes of the largest file that is read."""


def settings_of(rules: Rules) -> Settings:
    """What all files that these rules make have in common."""
    return Settings(RULES, EDITION, rules.secret.fingerprint, rules.kept.names, EARLIEST, LATEST)


class Copying:
    """One run over a folder: iterating does one file at a time, and gives what became of it.

    Nothing that a file holds stops it. ``summary`` has the counts; they stand in the target, as
    ``deidentification.json``, from the beginning on. ``begun``: whether they do yet.
    """

    def __init__(
        self, folders: Folders, rules: Rules, accepted: Collection[str] = (), *, remove_gone: bool = False
    ) -> None:
        """accepted: pseudonyms, or new UIDs of studies, series or instances, at whose pixels a person looked.

        remove_gone: whether copies that no source file stands behind any more are removed; else they are counted.
        """
        self._folders = folders
        self._rules = rules
        self._accepted = frozenset(accepted)
        self._remove_gone = remove_gone
        self._files = folders.files()
        self._sources = frozenset(map(self._source, self._files))
        self.summary = Summary(settings_of(rules), __version__)
        self.begun = False

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Line]:
        """Raises UserError where an accepted name is none of a quarantined file, and where nothing can be written."""
        with Journal(self._folders.journal) as journal:
            self._check_accepted(journal)
            self.begun = True
            self._write_summary()
            lines = list[Line]()
            try:
                for path in self._files:
                    line, before = self._done(path, journal)
                    self.summary.count(line, before=before)
                    lines.append(line)
                    yield line
                self._gone(journal, lines)
                self.summary.finished = True
            finally:
                self._write_summary()

    def _source(self, path: Path) -> str:
        return str(path.relative_to(self._folders.source))

    def _gone(self, journal: Journal, lines: list[Line]) -> None:
        """Count, or remove, files of earlier runs whose source file was taken away, or is another now."""
        in_copy = {line.copy for line in lines if line.action in (Action.COPIED, Action.DOUBLE)}
        waiting = {line.copy for line in lines if line.action in (Action.QUARANTINED, Action.DOUBLE)}
        for folder, standing in ((self._folders.target, in_copy), (self._folders.quarantine, waiting)):
            gone = [folder / name for name in sorted(journal.made - standing) if (folder / name).is_file()]
            if self._remove_gone:
                for path in gone:
                    _remove(path, folder)
                self.summary.removed += len(gone)
            else:
                self.summary.gone += len(gone)

    def _done(self, path: Path, journal: Journal) -> tuple[Line, bool]:
        """What became of a file, now or in an earlier run."""
        source = self._source(path)
        content = _content(path)
        if isinstance(content, Refusal):
            line = Line(source, "", Action.REFUSED, content.name.lower())
            journal.append(line)
            return line, False
        digest = self._rules.secret.mac("content", content).hex()
        last = journal.last(source)
        if last is not None and last.digest == digest and self._stands(last):
            return last, True
        line = self._made(source, digest, content, journal)
        journal.append(line)
        return line, False

    def _stands(self, line: Line) -> bool:
        """Whether nothing is to be done again for a file whose content is the same as before."""
        if line.action is Action.COPIED:
            return (self._folders.target / line.copy).is_file()
        if line.action is Action.QUARANTINED:
            return not self._is_accepted(line.copy) and (self._folders.quarantine / line.copy).is_file()
        return False

    def _made(self, source: str, digest: str, content: bytes, journal: Journal) -> Line:
        last = journal.last(source)
        waited = last is not None and (last.action, last.digest) == (Action.QUARANTINED, digest)
        made = deidentify(content, self._rules, lambda name: waited and self._is_accepted(name))
        if isinstance(made, Refusal):
            return Line(source, digest, Action.REFUSED, made.name.lower())
        owner = journal.owner(made.name)
        if owner is not None and owner.source != source and owner.source in self._sources and self._stands(owner):
            if owner.digest != digest:
                return Line(source, digest, Action.REFUSED, Refusal.SAME_NAME.name.lower())
            return Line(source, digest, Action.DOUBLE, copy=made.name)
        if made.suspicion is not None:
            _write(self._folders.quarantine / made.name, made.content, mode=0o600)
            return Line(source, digest, Action.QUARANTINED, made.suspicion.name.lower(), made.name)
        _write(self._folders.target / made.name, made.content)
        (self._folders.quarantine / made.name).unlink(missing_ok=True)
        return _copied(source, digest, made)

    def _is_accepted(self, name: str) -> bool:
        return bool(self._accepted & {EVERYTHING, *_parts(name)})

    def _check_accepted(self, journal: Journal) -> None:
        known = {EVERYTHING, *(part for line in journal.suspected() for part in _parts(line.copy))}
        unknown = sorted(self._accepted - known)
        if unknown:
            raise UserError(
                f"--accept {unknown[0]}: no quarantined file has this name",
                remedy=f"name a folder or file of {self._folders.quarantine}, without .dcm",
            )

    def _write_summary(self) -> None:
        _write(self._folders.report, (json.dumps(self.summary.as_json(), indent=2) + "\n").encode())


def _copied(source: str, digest: str, made: Copy) -> Line:
    deeds = {deed.value: n for deed, n in made.tally.deeds.items()}
    return Line(source, digest, Action.COPIED, "", made.name, made.looked_at, deeds, dict(made.tally.texts))


def _parts(name: str) -> list[str]:
    return name.removesuffix(".dcm").split("/")


def _content(path: Path) -> bytes | Refusal:
    """The bytes of a file, or why they are not read."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return Refusal.NO_FILE
        if found.st_size > _LARGEST:
            return Refusal.TOO_LARGE
        with path.open("rb") as file:
            head = file.read(HEAD)
            return head + file.read() if is_dicom(head) else Refusal.NOT_DICOM
    except OSError:
        return Refusal.NO_FILE


def _remove(path: Path, folder: Path) -> None:
    """Remove a file, and the folders that are empty without it. Raises UserError where it cannot be removed."""
    try:
        path.unlink()
        for parent in path.parents:
            if parent == folder or any(parent.iterdir()):
                return
            parent.rmdir()
    except OSError as error:
        raise UserError(
            f"a copy whose source file is gone cannot be removed ({error.strerror})",
            where=str(path.parent),
            remedy="mend the folder's permissions, then give the same command again",
        ) from error


def _write(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Raises UserError where the disk is full, or the folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content, mode=mode)
    except (OSError, RunFolderError) as error:
        cause = error.cause if isinstance(error, RunFolderError) else f"cannot write ({error.strerror})"
        raise UserError(
            cause,
            where=str(path.parent),
            remedy="free disk space or mend the folder's permissions, then give the same command again",
        ) from error
