"""``medfed explain`` and ``medfed site explain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from medfed.cli.options import Json, print_json
from medfed.cli.site_running import SiteFolderOption
from medfed.core.errors import UserError
from medfed.core.examples import Split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medfed.evaluate.explained import Method

_MOST = 200

Run: TypeAlias = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]
Images: TypeAlias = Annotated[
    int, typer.Option("--images", "-n", metavar="N", min=1, max=_MOST, help="Images, or rows of a table, a site.")
]
MethodName: TypeAlias = Annotated[
    str | None, typer.Option("--method", metavar="M", help="gradcam or ig; what suits the model if not given.")
]
Part: TypeAlias = Annotated[Split, typer.Option("--split", help="Which part of the rows.")]
Output: TypeAlias = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="A folder outside the run; else RUN-local beside it."),
]


def explain(
    run: Run,
    site: Annotated[str | None, typer.Option("--site", help="One site; each of them if not given.")] = None,
    images: Images = 12,
    method: MethodName = None,
    split: Part = Split.TEST,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            metavar="DIR",
            help="The folder with the rows, or with --site that site's own; else the one that the run used.",
        ),
    ] = None,
    output: Output = None,
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
      medfed explain ./deployed-run --site north --data ./our-images --output ./at-our-hospital
    """
    from medfed import api

    methods = _methods(method)
    _tell(api.explain(run, site=site, data=data, split=split, rows=images, methods=methods, output=output), as_json)


def explain_at_site(
    run: Run,
    folder: SiteFolderOption = Path(),
    images: Images = 12,
    method: MethodName = None,
    split: Part = Split.TEST,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """As medfed explain, on the rows that this site's site.yaml declares for the run's task.

    RUN is a copy of the coordinator's folder, with the model. Nothing leaves.

    \b
    Examples:
      medfed site explain ./pneumonia-run
      medfed site explain ./pneumonia-run --folder /srv/medfed/north --images 24 --output /srv/medfed/explained
    """
    from medfed import api

    methods = _methods(method)
    _tell([api.explain_at_site(folder, run, split=split, rows=images, methods=methods, output=output)], as_json)


def _methods(name: str | None) -> tuple[Method, ...] | None:
    """The method of that name. Raises UserError for an unknown one."""
    from medfed.evaluate.explained import Method

    known = [each.value for each in Method]
    if name is not None and name not in known:
        raise UserError(f"no method is called {name!r}", remedy=f"known: {', '.join(known)}")
    return None if name is None else (Method(name),)


def _tell(pages: Sequence[Path], as_json: bool) -> None:
    if as_json:
        print_json({"pages": [str(page) for page in pages]})
        return
    for page in pages:
        print(f"page: {page}")
    print("Such a page holds patients' images or values: keep it where the rows are.")
