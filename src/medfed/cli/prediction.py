"""``medfed predict``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

_Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]


def predict(
    run: _Run,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="New rows, in the form of the task's data.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="A CSV file; the screen if not given."),
    ] = None,
    site: Annotated[
        str | None,
        typer.Option("--site", help="Whose model or standardisation, where each site has its own."),
    ] = None,
) -> None:
    """Score new rows by a trained model. A label column is not needed; rows with missing values get no score.

    \b
    Examples:
      medfed predict runs/heart-20260131-101500 new-patients.csv
      medfed predict runs/heart-20260131-101500 new-patients.csv --output scores.csv
    """
    from medfed import api
    from medfed.core.files import write_atomically

    scored = api.predict(run, data, site=site)
    if output is None:
        scored.to_csv(sys.stdout, index=False)
        return
    write_atomically(output, scored.to_csv(index=False))
    unscored = int(scored.iloc[:, -1].isna().sum())
    print(f"{output}: {len(scored)} rows, {unscored} without a score for want of a value")
