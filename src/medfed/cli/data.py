"""``medfed data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medfed.cli.options import Json, print_json
from medfed.core.errors import UserError

app = typer.Typer(help="Obtain public data to try MedFed on, and look at a site's own.", no_args_is_help=True)

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


@app.command()
def unreadable(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task file.")],
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="The folder that the task's paths are below.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the files of a task's simulated sites that give no image, each with its reason.

    Every image is read for it. The names of files may tell of patients: the list is for those who hold the files.

    \b
    Examples:
      medfed data unreadable task.yaml
      medfed data unreadable task.yaml --data ./images --json
    """
    from medfed.api import unreadable as unreadable_files

    found = unreadable_files(task, data=data)
    if as_json:
        print_json({site: [vars(each) for each in files] for site, files in found.items()})
        return
    for site, files in found.items():
        for each in files:
            print(f"{site}: {each.name}: {each.reason}{' (passed over)' if each.ignored else ''}")
    amiss = sum(not each.ignored for files in found.values() for each in files)
    print(f"{amiss} {'file' if amiss == 1 else 'files'} cannot be read")
