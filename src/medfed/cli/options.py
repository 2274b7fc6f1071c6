"""Options that several commands share, and how they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

TaskPath: TypeAlias = Annotated[Path, typer.Argument(metavar="TASK", help="The task file (YAML).")]
Output: TypeAlias = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="The run folder; a new one below runs/ if not given."),
]
Data: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data", "-d", metavar="DIR", help="The folder that the task's paths are below; else the task's own."
    ),
]
Settings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change the task: --set federation.lr=0.01 (repeatable)."),
]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Timed: TypeAlias = Annotated[
    bool, typer.Option("--timings", help="Say when the first round was done, and at the end where the time went.")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, for programs.")]


def printable(text: str) -> str:
    """The text with control characters escaped: a site's or a column's name must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def print_json(content: Any) -> None:
    """One JSON object on one line."""
    print(json.dumps(content, ensure_ascii=False), flush=True)
