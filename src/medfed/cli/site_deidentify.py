"""``medfed site deidentify``: a clean copy of a folder of DICOM files."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medfed.cli.options import Json, print_json, printable
from medfed.cli.site_running import SiteFolderOption
from medfed.core.errors import UserError

if TYPE_CHECKING:
    from medfed.data.deidentify.copying import Copying
    from medfed.data.deidentify.folders import Folders
    from medfed.data.deidentify.summary import Summary

_KEY = "deidentification.key"


def deidentify(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The folder of DICOM files; it is only read.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The folder of the clean copy.")],
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="WHAT",
            help="Keep an attribute beyond the profile, by keyword (PatientAge), or the numbers of a private block, as "
            "GROUP,CREATOR (repeatable).",
        ),
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            "--accept",
            metavar="NAME",
            help="Copy quarantined files at whose pixels you looked: a pseudonym or new UID from the quarantine's "
            "names, or all (repeatable).",
        ),
    ] = None,
    remove_gone: Annotated[
        bool,
        typer.Option("--remove-gone", help="Remove copies whose source file is gone or is another now."),
    ] = False,
    private: Annotated[
        Path | None,
        typer.Option("--private", metavar="DIR", help="Where quarantine and list of files go; else TARGET.private."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="The site's key, made if missing; else in the site's folder."),
    ] = None,
    folder: SiteFolderOption = Path(),
    as_json: Json = False,
) -> None:
    """Write a clean copy of a folder of DICOM files: PS3.15 basic profile, keyed UIDs, shifted dates, pixels checked.

    Files whose pixels may show an identifier wait in quarantine for a person's look; what cannot be de-identified is
    refused with a reason. Give the same command again to go on after an interruption, or when files were added.

    \b
    Examples:
      medfed site deidentify /srv/pacs/export /srv/medfed/data/chest
      medfed site deidentify export chest --keep PatientAge --keep PatientSex --keep ManufacturerModelName
      medfed site deidentify export chest --accept P-7QK3M5XQ2LZPA4JD
    """
    from medfed.data.deidentify.extra import require_imaging

    require_imaging()
    from medfed.data.deidentify.attributes import Rules
    from medfed.data.deidentify.copying import Copying, settings_of
    from medfed.data.deidentify.folders import opened, require_source
    from medfed.data.deidentify.kept import parse_kept
    from medfed.data.deidentify.secret import load_or_create_secret
    from medfed.report.deidentification_page import write_deidentification_report

    require_source(source)  # before a key is made
    kept = parse_kept(keep or ())
    rules = Rules(load_or_create_secret(key or _site_key(folder)), kept)
    folders = opened(source, target, private, settings_of(rules))
    copying = Copying(folders, rules, accept or (), remove_gone=remove_gone)
    try:
        _watch(copying, quiet=as_json)
    finally:
        if copying.begun:
            report = write_deidentification_report(copying.summary, folders.target)
    if as_json:
        print_json({**copying.summary.as_json(), "target": str(folders.target), "private": str(folders.private)})
    else:
        _tell(copying.summary, folders, report)
    _require_dicom(copying.summary, source)
    if copying.summary.refused["fault"]:
        raise typer.Exit(1)


def _require_dicom(summary: Summary, source: Path) -> None:
    """Raise UserError where the source held nothing to copy, unless copies of what is gone were to be removed."""
    if summary.actions.total() == summary.refused["not_dicom"] and not summary.removed:
        raise UserError(
            "the source holds no DICOM file",
            where=str(source),
            remedy="name the folder that holds them; such a file begins with 128 bytes and the letters DICM",
        )


def _site_key(folder: Path) -> Path:
    from medfed.engine.deployed.folders import SiteFolder

    return SiteFolder.open(folder).path / "keys" / _KEY


def _watch(copying: Copying, *, quiet: bool) -> None:
    """Do all files, behind a bar where there is a terminal."""
    lines: Iterable[object] = copying
    if not quiet and sys.stdout.isatty():
        from rich.progress import track

        lines = track(copying, description="de-identifying", total=len(copying), transient=True)
    for _ in lines:
        pass


def _tell(summary: Summary, folders: Folders, report: Path) -> None:
    from medfed.data.deidentify.summary import REASONS
    from medfed.report.words import plural

    print(
        f"{plural(summary.copied, 'file')} of {plural(len(summary.patients), 'patient')} in the copy, "
        f"{summary.done_before:,} of {summary.actions.total():,} done before"
    )
    for title, counts in (("quarantined", summary.quarantined), ("refused", summary.refused)):
        for code, n in counts.most_common():
            print(f"  {title} {n:,}: {REASONS[code]}")
    if summary.gone:
        print(f"  left behind {summary.gone:,}: copies whose source file is gone; --remove-gone removes them")
    if summary.removed:
        print(f"  removed {summary.removed:,}: copies whose source file was gone")
    if summary.quarantined:
        print(printable(f"look at the files in {folders.quarantine}; those that show no identifier: --accept NAME"))
    print(printable(f"which files these are (stays at the site): {folders.journal}"))
    print(printable(f"report: {report}"))
