"""The folders of a de-identification: source, copy, and what stays at the site."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from medfed.core.errors import UserError
from medfed.data.deidentify.summary import FORMAT, Settings

REPORT = "deidentification.json"
_UID = r"(?:none|[0-9.]+)"
_MADE = re.compile(rf"P-[A-Z2-7]{{16}}/{_UID}/{_UID}/(?:[0-9.]+\.dcm|\.[0-9.]+\.dcm\.partial)")
"""The name of a copy, and of what a run leaves that is killed while it writes one."""


@dataclass(frozen=True)
class Folders:
    """source is only read. target: the clean copy. private: the list of files, and quarantined files."""

    source: Path
    target: Path
    private: Path

    @property
    def quarantine(self) -> Path:
        """Files that wait for a person's look; their headers are clean, their pixels may not be."""
        return self.private / "quarantine"

    @property
    def journal(self) -> Path:
        """The list of source files and what became of each."""
        return self.private / "files.jsonl"

    @property
    def report(self) -> Path:
        """The report for programs."""
        return self.target / REPORT

    def files(self) -> list[Path]:
        """All files below the source, in order, and links to folders, which are not followed."""
        return sorted(_walk(self.source))

    def made(self, folder: Path) -> list[str]:
        """Names of all files in the target or the quarantine that any run made, whole or not, in order."""
        found = (str(path.relative_to(folder)) for path in folder.glob("P-*/*/*/*") if path.is_file())
        return sorted(name for name in found if _MADE.fullmatch(name))


def require_source(source: Path) -> None:
    """Raise UserError where the source is no folder."""
    if not source.is_dir():
        cause = "is no folder" if source.exists() else "does not exist"
        raise UserError(f"the source {cause}", where=str(source), remedy="name the folder that holds the DICOM files")


def opened(source: Path, target: Path, private: Path | None, settings: Settings) -> Folders:
    """The folders, made where they are missing.

    Raises UserError where the source is no folder, where one lies in another, where the target holds anything else than
    a copy by the same key and settings, or where they cannot be made.
    """
    require_source(source)
    folders = Folders(source.resolve(), target.resolve(), (private or Path(f"{target.resolve()}.private")).resolve())
    for one, other in ((0, 1), (0, 2), (1, 2)):
        _check_apart(*(list(asdict(folders).values())[k] for k in (one, other)))
    _check_target(folders, settings)
    try:
        folders.target.mkdir(parents=True, exist_ok=True)
        folders.private.mkdir(parents=True, exist_ok=True, mode=0o700)
        folders.quarantine.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(f"the folder cannot be made ({error.strerror})", where=str(error.filename)) from error
    return folders


def _check_apart(one: Path, other: Path) -> None:
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise UserError(
            "source, target and private folder must not lie in one another",
            where=str(other),
            remedy="name folders beside each other; the source is never written to",
        )


def _check_target(folders: Folders, settings: Settings) -> None:
    """Raise UserError where the target is not empty and not of the same settings."""
    target = folders.target
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        found = json.loads(folders.report.read_text())
        made = found["settings"] if found["format"] == FORMAT else None
    except (OSError, ValueError, LookupError, TypeError):
        made = None
    if made is None:
        raise UserError(
            "the target holds something that is no copy of medfed site deidentify",
            where=str(target),
            remedy="name a new or an empty folder",
        )
    if made != json.loads(json.dumps(asdict(settings))):
        raise UserError(
            "the copy in the target was made with another key or other settings",
            where=str(folders.report),
            remedy="give the same key and the same --keep, or name a new folder",
        )


def _walk(folder: Path) -> Iterator[Path]:
    """Raises UserError for a folder that cannot be looked into: what is in it would be left out without a word."""

    def unreadable(error: OSError) -> None:
        raise UserError(
            f"a folder cannot be looked into ({error.strerror})",
            where=str(error.filename),
            remedy="mend its permissions, then give the same command again",
        ) from error

    for directory, folders, names in os.walk(folder, onerror=unreadable):
        yield from (Path(directory) / name for name in names)
        yield from (path for name in folders if (path := Path(directory) / name).is_symlink())
