"""A hospital's part: it makes its keys, asks to be admitted, and joins with the answer."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from medfed.core.errors import UserError
from medfed.core.files import write_atomically
from medfed.engine.deployed.folders import SiteFolder
from medfed.engine.flare.admissions import signed_members
from medfed.engine.flare.authority import Kind, built_kit, request_certificate
from medfed.engine.flare.certificates import heard, read_certificate, spoken
from medfed.engine.flare.invitation import Invitation, read_invitation
from medfed.engine.flare.kits import install_kit
from medfed.engine.flare.request import AdmissionRequest, write_request
from medfed.engine.flare.writing import private_folder, writable
from medfed.spec.site import default_site_file

_REQUEST = "request"
"""The folder of a request that was not answered yet, with the private key for which it asks a certificate."""


@dataclass(frozen=True)
class Identity:
    """Who a site is, as its folder's identity.json says. root: the root certificate's SHA-256."""

    consortium: str
    site: str
    coordinator: str
    root: str


def read_identity(site: Path) -> Identity:
    """Raises UserError where the folder holds no site, or its identity is damaged."""
    path = SiteFolder.open(site).path / "identity.json"
    try:
        return Identity(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError("this file is damaged", where=str(path), remedy="bring back a copy of it") from error


def init_site(invitation_path: Path, folder: Path) -> tuple[AdmissionRequest, Path, Invitation]:
    """Make a site's folder, its keys and its request; the request, the zip to send, and the invitation.

    Raises UserError for a bad invitation, or where there is a site in the folder already.
    """
    with writable(folder):
        return _init_site(invitation_path, folder)


def _init_site(invitation_path: Path, folder: Path) -> tuple[AdmissionRequest, Path, Invitation]:
    invitation = read_invitation(invitation_path)
    if (folder / "identity.json").exists():
        raise UserError(
            "there is a site in this folder already",
            where=str(folder),
            remedy="name another folder by --output, or renew its keys: medfed site renew",
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("keys", "log", "proposals", "ledger", "memory"):
        private_folder(folder / name)
    write_atomically(folder / "keys" / "coordinator.pub", invitation.key().pem(), mode=0o644)
    if not (folder / "site.yaml").exists():
        write_atomically(folder / "site.yaml", default_site_file(invitation.contact), mode=0o600)
    address = f"{invitation.host}:{invitation.port}"
    identity = Identity(invitation.consortium, invitation.site, address, invitation.root)
    request, path = _ask(folder, identity)
    write_atomically(folder / "identity.json", json.dumps(identity.__dict__, indent=1) + "\n", mode=0o644)
    return request, path, invitation


def renew_site(site: Path) -> tuple[AdmissionRequest, Path]:
    """Make a new private key and a request for its certificate; the old ones serve until the site joins anew."""
    folder = SiteFolder.open(site).path
    with writable(folder):
        return _ask(folder, read_identity(folder))


def join_site(site: Path, signed: Path, fingerprint: str | None = None) -> None:
    """Build the site's FLARE workspace from the coordinator's answer.

    The root certificate must be the invitation's, and the certificate that of the site's own key; ``fingerprint``,
    where given, is compared too. Raises UserError, and then the workspace is as it was.
    """
    folder = SiteFolder.open(site).path
    identity = read_identity(folder)
    request = folder / _REQUEST
    if not request.is_dir():
        raise UserError(
            "this site has no open request", where=str(folder), remedy="to renew its certificate: medfed site renew"
        )
    try:
        root = read_certificate(signed_members(signed, identity.site)["rootCA.pem"]).fingerprint
    except UserError as error:
        raise UserError(error.cause, where=str(signed), remedy="ask the coordinator for it again") from error
    if root != identity.root or (fingerprint is not None and heard(fingerprint) != root):
        raise UserError(
            f"the answer is not of the consortium that invited this site; its root certificate is {spoken(root)}",
            where=str(signed),
            remedy="do not use it; ask the coordinator, over the telephone, who sent it",
        )
    with writable(folder):
        with built_kit(signed, request, root, identity.site) as built:
            install_kit(built, folder / "flare", Kind.CLIENT)
        shutil.rmtree(request)


def _ask(folder: Path, identity: Identity) -> tuple[AdmissionRequest, Path]:
    """Make a FLARE key and a request in place of one that was not answered."""
    site = SiteFolder(folder)
    request = folder / _REQUEST
    shutil.rmtree(request, ignore_errors=True)
    asked = request_certificate(request, identity.site, Kind.CLIENT)
    path = folder / f"{identity.site}.request.zip"
    return write_request(path, asked.read_bytes(), identity.root, site.key()), path
