"""``medfed explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medfed.cli.options import Json, print_json
from medfed.core.errors import UserError
from medfed.core.examples import Split

_MOST = 200


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    site: Annotated[str | None, typer.Option("--site", help="One site; each of them if not given.")] = None,
    images: Annotated[
        int, typer.Option("--images", "-n", metavar="N", min=1, max=_MOST, help="Images, or rows of a table, a site.")
    ] = 12,
    method: Annotated[
        str | None, typer.Option("--method", metavar="M", help="gradcam or ig; what suits the model if not given.")
    ] = None,
    split: Annotated[Split, typer.Option("--split", help="Which part of the rows.")] = Split.TEST,
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", metavar="DIR", help="The folder with the rows; else the one that the run used."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="A folder outside the run; else RUN-local beside it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a site's own people what a finished model's answers rest on: Grad-CAM and integrated gradients.

    The worst errors come first, then right answers that the model was sure of, then those it doubted most. Each site's
    page stays with its rows: it holds images or values of patients, only its owner can read it, and nothing of it
    leaves. Whose each is stands in rows.csv beside it.

    \b
    Examples:
      medfed explain runs/pneumonia-20260131-101500
      medfed explain runs/pneumonia-20260131-101500 --site north --images 24 --method gradcam
      medfed explain ./deployed-run --data ./our-images --output ./at-our-hospital
    """
    from medfed import api
    from medfed.evaluate.explained import Method

    known = [each.value for each in Method]
    if method is not None and method not in known:
        raise UserError(f"no method is called {method!r}", remedy=f"known: {', '.join(known)}")
    methods = None if method is None else (Method(method),)
    pages = api.explain(run, site=site, data=data, split=split, rows=images, methods=methods, output=output)
    if as_json:
        print_json({"pages": [str(page) for page in pages]})
        return
    for page in pages:
        print(f"page: {page}")
    print("These pages hold patients' images or values: keep them where the rows are.")
