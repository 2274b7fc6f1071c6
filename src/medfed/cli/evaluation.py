"""``medfed evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from medfed.cli.options import Json, Quiet, print_json, printable
from medfed.core.errors import UserError

_Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]


def evaluate(
    run: _Run,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", "-d", metavar="PATH", help="Labelled rows from elsewhere, in the form of the task's data."
        ),
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option("--site", metavar="NAME", help="A simulated site of the run (repeatable); all if none is given."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="SITE", help="Whose model or standardisation, where each site has its own."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="A new folder; below RUN/evaluations/ if not given."),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure a finished run's model on rows that did not train it, and write a report.

    With --data: on labelled rows from elsewhere, all of them (external validation). Without: on the test part of the
    run's simulated sites, each through its gate.

    \b
    Examples:
      medfed evaluate runs/heart-20260131-101500 --data other-hospital.csv
      medfed evaluate runs/heart-20260131-101500 --site Cleveland --site VA
      medfed evaluate runs/heart-local --model Cleveland --site VA
    """
    from medfed import api

    if data is not None and site:
        raise UserError("--data and --site name different rows", remedy="give one of the two")
    folder = api.evaluate(run, data, sites=tuple(site or ()), model=model, output=output)
    content = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    if as_json:
        print_json(content | {"folder": str(folder)})
    elif not quiet:
        for name, measures in content["metrics"].items():
            print(printable(f"{name}: {_line(measures)}"))
        print(printable(f"report: {folder / 'report.html'}"))


def _line(measures: dict[str, dict[str, Any]]) -> str:
    """The values of a site's metrics, and the reason where it has none."""
    values = [f"{metric} {m['value']:.3f}" for metric, m in measures.items() if m["value"] is not None]
    reasons = dict.fromkeys(str(m.get("reason", "no value")) for m in measures.values() if m["value"] is None)
    return ", ".join([*values, *([] if values else reasons)])
