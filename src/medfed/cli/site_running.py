"""``medfed site start | status | check``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from medfed.cli.options import Json, print_json

SiteFolderOption: TypeAlias = Annotated[
    Path, typer.Option("--folder", metavar="SITE", envvar="MEDFED_SITE", help="The site's folder.")
]


def start(folder: SiteFolderOption = Path()) -> None:
    """Connect this site to its coordinator, in the foreground, until SIGTERM or Ctrl-C.

    The site only dials out. It logs JSON lines; what the coordinator asks is answered only as far as site.yaml and the
    steward's approvals allow.

    \b
    Examples:
      medfed site start
      medfed site start --folder /srv/medfed/north
    """
    from medfed.engine.flare.service import serve_site

    raise typer.Exit(serve_site(folder))


def status(folder: SiteFolderOption = Path(), as_json: Json = False) -> None:
    """Say whether this site's service runs, and whether the coordinator answers it; exit 0 if it runs, 1 if not.

    \b
    Examples:
      medfed site status
      medfed site status --folder /srv/medfed/north --json
    """
    from medfed.engine.flare.health import site_health

    health = site_health(folder)
    print_json(asdict(health)) if as_json else print(health.sentence)
    raise typer.Exit(0 if health.healthy else 1)


def check(folder: SiteFolderOption = Path(), as_json: Json = False) -> None:
    """Check site.yaml: its form, and that every dataset it names can be read; files that give no image are listed.

    \b
    Examples:
      medfed site check
    """
    from medfed.engine.deployed.cohorts import check_datasets

    found = check_datasets(folder)
    for name, checked in found.items():
        if as_json:
            unread = [asdict(each) for each in checked.unread]
            print_json({"dataset": name, "columns": checked.columns, "unread": unread})
            continue
        print(f"{name}: can be read, {checked.columns} columns")
        for each in checked.unread:
            print(f"  {each.name}: {each.reason}{' (passed over)' if each.ignored else ''}")
    if not found and not as_json:
        print("site.yaml is well formed; it declares no dataset yet")
