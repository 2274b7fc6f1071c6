"""``medfed data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medfed.cli.options import Json, print_json
from medfed.core.errors import UserError

app = typer.Typer(help="Obtain public data to try MedFed on.", no_args_is_help=True)

_SETS = ("heart-disease",)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of: {', '.join(_SETS)}.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where to; ./NAME if not given.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Take the files from this folder in place of the net."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Obtain a public data set, verify its checksums, and divide it over its hospitals.

    heart-disease: UCI Heart Disease, four hospitals, CC BY 4.0 (doi 10.24432/C52P4X).

    \b
    Examples:
      medfed data fetch heart-disease
      medfed data fetch heart-disease --from ./downloads --output ./heart
      medfed run heart-disease/task.yaml
    """
    from medfed.data.heart import fetch_heart

    if name not in _SETS:
        raise UserError(f"no data set is called {name!r}", remedy=f"known: {', '.join(_SETS)}")
    target = output or Path(name)
    files = fetch_heart(target, source)
    if as_json:
        print_json({"files": [str(file) for file in files]})
        return
    for file in files:
        print(file)
    print(f"now: medfed run {target / 'task.yaml'}")
