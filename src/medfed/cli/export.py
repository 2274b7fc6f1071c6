"""``medfed export``."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from medfed.cli.options import Json, print_json, printable

_Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]


class Form(enum.StrEnum):
    """The forms that a model can be exported in."""

    ONNX = "onnx"
    BUNDLE = "bundle"


def export(
    run: _Run,
    form: Annotated[Form, typer.Option("--format", "-f", help="onnx: one file; bundle: a MONAI bundle's folder.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="RUN/export/model.onnx or RUN/export/bundle if not given."),
    ] = None,
    site: Annotated[
        str | None, typer.Option("--site", help="Whose model or standardisation, where each site has its own.")
    ] = None,
    licence: Annotated[
        Path | None, typer.Option("--license", metavar="FILE", help="The licence to put into the bundle.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a trained model in a form that other software takes.

    onnx holds the network with the run's standardisation before it and probabilities after it; what it takes and gives
    stands in a .json beside it (extra `export`). bundle is a folder that MONAI loads, with the task's transforms.

    \b
    Examples:
      medfed export runs/heart-20260131-101500 --format onnx
      medfed export runs/chest-20260131-101500 --format bundle --output ./chest-bundle --license LICENSE
    """
    from medfed import api

    written = api.export(run, form.value, output=output, site=site, licence=licence)
    if as_json:
        print_json({"path": str(written.path), "largest_difference": written.difference})
        return
    print(printable(f"written: {written.path}"))
    if form is Form.ONNX:
        told = "onnxruntime is not installed, so that it was not compared with torch"
        if written.difference is not None:
            told = f"largest difference between ONNX Runtime and torch: {written.difference:.2g}"
        print(told)
