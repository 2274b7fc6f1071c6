"""``medfed site init | join | renew``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medfed.cli.options import Json, print_json
from medfed.cli.site_running import SiteFolderOption

if TYPE_CHECKING:
    from medfed.engine.flare.request import AdmissionRequest


def init(
    invitation: Annotated[Path, typer.Argument(metavar="INVITATION", help="The file that the coordinator sent.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="SITE", envvar="MEDFED_SITE", help="The site's folder.")
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Make this site's keys, and the request that asks the coordinator to admit it.

    The private keys stay in this folder, readable by its owner only. Send the request; then ring the coordinator and
    read out its fingerprint.

    \b
    Examples:
      medfed site init north.json --output /srv/medfed/north
    """
    from medfed.engine.flare.certificates import spoken
    from medfed.engine.flare.joining import init_site

    request, path, invited = init_site(invitation, output)
    if as_json:
        print_json(
            {
                "site": request.site,
                "request": str(path),
                "fingerprint": request.fingerprint,
                "root_fingerprint": invited.root,
                "coordinator_fingerprint": invited.coordinator_fingerprint,
            }
        )
        return
    print(f"site {request.site} of consortium {invited.consortium}, in {output}")
    _tell(request, path)
    print(f"Let them read out theirs to you, which must be:\n  {spoken(invited.coordinator_fingerprint)}")


def join(
    signed: Annotated[Path, typer.Argument(metavar="SIGNED.zip", help="The coordinator's answer.")],
    fingerprint: Annotated[
        str | None,
        typer.Option("--fingerprint", metavar="ROOT", help="The root certificate's, to compare besides."),
    ] = None,
    folder: SiteFolderOption = Path(),
) -> None:
    """Take the coordinator's answer: the certificate with which this site connects.

    The answer must be of the consortium that the invitation named, and for the key that was made here.

    \b
    Examples:
      medfed site join north.signed.zip --folder /srv/medfed/north
    """
    from medfed.engine.flare.joining import join_site, read_identity

    join_site(folder, signed, fingerprint)
    identity = read_identity(folder)
    print(f"{identity.site} can connect to {identity.coordinator}: medfed site start")


def renew(folder: SiteFolderOption = Path(), as_json: Json = False) -> None:
    """Make a new key for connecting, and a request for its certificate; the old ones serve until the site joins anew.

    \b
    Examples:
      medfed site renew --folder /srv/medfed/north
    """
    from medfed.engine.flare.joining import renew_site

    request, path = renew_site(folder)
    if as_json:
        print_json({"site": request.site, "request": str(path), "fingerprint": request.fingerprint})
    else:
        _tell(request, path)


def _tell(request: AdmissionRequest, path: Path) -> None:
    from medfed.engine.flare.certificates import spoken

    print(f"Send this to the coordinator: {path}")
    print(f"Then ring them and read out its fingerprint:\n  {spoken(request.fingerprint)}")
