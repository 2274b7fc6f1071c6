"""``medfed predict``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medfed.cli.options import Json, Quiet, print_json, printable

if TYPE_CHECKING:
    import pandas
    from rich.progress import Progress as Bar

_Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]
_MOST_LISTED = 20


def predict(
    run: _Run,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="New rows in the form of the task's data; or images: a file, a folder, an .npz archive.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="A CSV file; the screen if not given."),
    ] = None,
    site: Annotated[
        str | None,
        typer.Option("--site", help="Whose model or standardisation, where each site has its own."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", metavar="DIR", help="Of a segmentation: a folder for the masks, DICOM SEG for DICOM."),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Score new rows or images by a trained model. No label is needed.

    Rows with missing values get no score. Images are DICOM, NIfTI, PNG or JPEG files, or the arrays of an .npz archive;
    they are prepared as those that the model learnt from. Each image is a row, or each series where it takes volumes.
    Files that cannot be read are listed with their reason.

    \b
    Examples:
      medfed predict runs/heart-20260131-101500 new-patients.csv
      medfed predict runs/heart-20260131-101500 new-patients.csv --output scores.csv
      medfed predict runs/chest-20260131-101500 /archive/2026-02 --output scores.csv
      medfed predict runs/chest-20260131-101500 one-image.dcm --json
      medfed predict runs/lungs-20260131-101500 /archive/2026-02 --output shares.csv --masks masks
    """
    from medfed import api
    from medfed.core.files import write_atomically

    with _Shown(quiet=quiet or as_json) as shown:
        scored = api.predict(run, data, site=site, masks=masks, progress=shown.advanced)
    unread = scored[scored["reason"].notna()] if "reason" in scored else scored.iloc[:0]
    if not quiet:
        _tell_unread(unread)
    if output is not None:
        write_atomically(output, scored.to_csv(index=False))
    if as_json:
        for row in json.loads(scored.to_json(orient="records")):
            print_json(row)
    elif output is None:
        scored.to_csv(sys.stdout, index=False)
    elif not quiet:
        print(f"{output}: {_summary(scored)}")


def _summary(scored: pandas.DataFrame) -> str:
    lacking = int(scored.drop(columns="reason", errors="ignore").iloc[:, -1].isna().sum())
    if "reason" in scored:
        return f"{len(scored) - lacking} images with scores, {lacking} files without"
    return f"{len(scored)} rows, {lacking} without a score for want of a value"


def _tell_unread(unread: pandas.DataFrame) -> None:
    for file, reason in list(zip(unread.get("file", ()), unread.get("reason", ()), strict=True))[:_MOST_LISTED]:
        print(printable(f"no score: {file}: {reason}"), file=sys.stderr)
    if len(unread) > _MOST_LISTED:
        print(f"and {len(unread) - _MOST_LISTED} files more, in the column `reason`", file=sys.stderr)


class _Shown:
    """A bar on a terminal, of the images that are done."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Bar | None = None
        self._id: Any = None

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advanced(self, done: int, of: int) -> None:
        """Show how far it is."""
        if self._quiet or not sys.stderr.isatty():
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, transient=True, console=Console(stderr=True))
            self._id = self._bar.add_task("images", total=of)
            self._bar.start()
        self._bar.update(self._id, completed=done)
