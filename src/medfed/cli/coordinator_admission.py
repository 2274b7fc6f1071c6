"""``medfed provision`` and ``medfed coordinator admit | revoke | restore | sites``."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from medfed.cli.coordinator_running import CoordinatorFolderOption
from medfed.cli.options import Json, print_json, printable

if TYPE_CHECKING:
    from medfed.engine.flare.membership import Member

_Site: TypeAlias = Annotated[str, typer.Argument(metavar="SITE", help="A site that consortium.yaml names.")]


def provision(
    consortium: Annotated[
        Path, typer.Argument(metavar="CONSORTIUM", help="The consortium's file (YAML): its address and its sites.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="COORD", help="The coordinator's folder.")],
    as_json: Json = False,
) -> None:
    """Make the coordinator's folder and keys, and an invitation for every site.

    Run it again, after adding sites to the file, to invite those too.

    \b
    Examples:
      medfed provision consortium.yaml --output /srv/medfed/coordinator
    """
    from medfed.engine.deployed.folders import CoordinatorFolder
    from medfed.engine.flare.certificates import key_fingerprint, spoken
    from medfed.engine.flare.provisioning import provision as provision_consortium

    invitations = provision_consortium(consortium, output)
    fingerprint = key_fingerprint(CoordinatorFolder.open(output).key().verify_key)
    if as_json:
        named = {path.stem: str(path) for path in invitations}
        print_json({"folder": str(output), "invitations": named, "coordinator_fingerprint": fingerprint})
        return
    print(f"the coordinator's folder is {output}; send each site its invitation, none of which is secret:")
    for path in invitations:
        print(f"  {path}")
    print(f"When a site rings, read this out to it:\n  {spoken(fingerprint)}")


def admit(
    request: Annotated[Path, typer.Argument(metavar="REQUEST.zip", help="The request that a site sent.")],
    fingerprint: Annotated[
        str | None,
        typer.Option("--fingerprint", metavar="F", help="As the site's people read it out; asked for if not given."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="The site was admitted before; its earlier certificate is revoked.")
    ] = False,
    folder: CoordinatorFolderOption = Path(),
    as_json: Json = False,
) -> None:
    """Admit a site, once its people have read out the fingerprint over the telephone.

    Ring them at a number that you had before, and type what they read.

    \b
    Examples:
      medfed coordinator admit north.request.zip
      medfed coordinator admit north.request.zip --fingerprint 'a41f 09c2 …' --replace
    """
    from medfed.engine.flare.admissions import admit as admit_site
    from medfed.engine.flare.admissions import examine
    from medfed.engine.flare.certificates import spoken
    from medfed.engine.flare.membership import record_members

    found = examine(folder, request)
    if fingerprint is None:
        print(f"site: {found.site}\nfingerprint of its request:\n  {spoken(found.fingerprint)}")
        fingerprint = typer.prompt("Type what the site's people read to you")
    admission, answer = admit_site(folder, found, fingerprint, replace=replace, by=_user())
    record_members(folder)
    if as_json:
        print_json({"site": admission.site, "answer": str(answer), "certificate": admission.certificate})
    else:
        print(f"{admission.site} is admitted until {admission.ends[:10]}; send it {answer}")


def revoke(
    site: _Site,
    reason: Annotated[str, typer.Option("--reason", metavar="R", help="Why; the site is told.")] = "no reason given",
    folder: CoordinatorFolderOption = Path(),
) -> None:
    """Refuse a site from now on: also in the middle of a run, and also if it still has its keys.

    \b
    Examples:
      medfed coordinator revoke north --reason 'a laptop was stolen'
    """
    from medfed.engine.flare.membership import revoke_site

    revoke_site(folder, site, reason, _user())
    print(printable(f"{site} is revoked"))


def restore(site: _Site, folder: CoordinatorFolderOption = Path()) -> None:
    """Let a revoked site take part again, under the keys with which it was admitted.

    If those may be in others' hands, let it renew them first: medfed site renew.

    \b
    Examples:
      medfed coordinator restore north
    """
    from medfed.engine.flare.membership import restore_site

    restore_site(folder, site)
    print(printable(f"{site} may take part again"))


def sites(folder: CoordinatorFolderOption = Path(), as_json: Json = False) -> None:
    """List the sites: invited, admitted or revoked, and when their certificates end.

    \b
    Examples:
      medfed coordinator sites
    """
    from medfed.engine.flare.membership import members

    for member in members(folder):
        if as_json:
            _print_json(member)
        else:
            print(printable(_line(member)))


def _print_json(member: Member) -> None:
    admission, revocation = member.admission, member.revocation
    print_json(
        {
            "site": member.site,
            "status": _status(member),
            "contact": member.contact,
            "certificate": admission.certificate if admission else None,
            "ends": admission.ends if admission else None,
            "days_left": member.days_left,
            "revoked": revocation.reason if revocation else None,
        }
    )


def _line(member: Member) -> str:
    parts = [member.site, _status(member)]
    if member.revocation is not None:
        parts.append(f"{member.revocation.reason}, {member.revocation.time[:10]}")
    if member.admission is not None:
        parts.append(f"certificate until {member.admission.ends[:10]}")
    if member.ends_soon:
        parts.append(f"WARNING: {member.days_left} days left; at the site: medfed site renew")
    return ": ".join((parts[0], "; ".join(parts[1:])))


def _status(member: Member) -> str:
    if member.revocation is not None:
        return "revoked"
    return "invited" if member.admission is None else "admitted"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"
