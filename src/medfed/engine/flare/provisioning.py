"""The coordinator's kit and an invitation for each site; and a whole consortium on one machine."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from medfed.core.errors import UserError
from medfed.core.files import write_atomically
from medfed.engine.deployed.folders import CoordinatorFolder
from medfed.engine.flare.admissions import admit, authority, examine
from medfed.engine.flare.authority import (
    ADMINISTRATOR,
    Endpoint,
    Kind,
    approve_request,
    built_kit,
    create_authority,
    request_certificate,
    root_fingerprint,
)
from medfed.engine.flare.certificates import key_fingerprint
from medfed.engine.flare.invitation import Invitation
from medfed.engine.flare.joining import init_site, join_site
from medfed.engine.flare.kits import admin_kit, install_kit, server_workspace
from medfed.engine.flare.revocation import create_revocations
from medfed.engine.flare.writing import private_folder, writable
from medfed.govern.keys import load_or_create_key
from medfed.spec.consortium import ConsortiumSpec, load_consortium

PORT, ADMIN_PORT = 8002, 8003


def provision(consortium_file: Path, coordinator: Path) -> list[Path]:
    """Make the coordinator's folder, or invite the sites that the file names newly; the invitations.

    Raises UserError, TaskError; where a folder's consortium has another name or address.
    """
    with writable(coordinator):
        return _provision(consortium_file, coordinator)


def _provision(consortium_file: Path, coordinator: Path) -> list[Path]:
    consortium = load_consortium(consortium_file)
    endpoint = _endpoint(consortium)
    kept = coordinator / "consortium.yaml"
    if kept.exists() and _identity(load_consortium(kept)) != _identity(consortium):
        raise UserError(
            "the folder holds a consortium of another name or address, which its certificates name",
            where=str(coordinator),
            remedy="provision into a new folder, and invite every site again",
        )
    coordinator.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("keys", "keys/sites", "flare", "invitations", "runs", "ledger"):
        private_folder(coordinator / name)
    key = load_or_create_key(coordinator / "keys", "coordinator").verify_key
    root = _authority(coordinator, endpoint)
    _kit(coordinator, endpoint.host, Kind.SERVER, server_workspace(coordinator))
    _kit(coordinator, ADMINISTRATOR, Kind.ADMIN, admin_kit(coordinator))
    if not kept.exists():  # a list that was lost later must be brought back, not begun anew
        create_revocations(CoordinatorFolder(coordinator).revoked)
    if not kept.exists() or not kept.samefile(consortium_file):
        write_atomically(kept, consortium_file.read_bytes(), mode=0o644)
    written = []
    for site, invited in consortium.sites.items():
        written.append(coordinator / "invitations" / f"{site}.json")
        Invitation(
            consortium.name,
            site,
            invited.contact or "",
            endpoint.host,
            endpoint.port,
            root,
            key.pem().decode(),
            key_fingerprint(key),
        ).write(written[-1])
    return written


def make_consortium(
    folder: Path, sites: Sequence[str], host: str = "localhost", port: int = PORT, admin_port: int = ADMIN_PORT
) -> None:
    """A consortium on one machine, by the same functions as the commands: ``folder/coordinator`` and
    ``folder/sites/<name>``, every site admitted and joined."""
    folder.mkdir(parents=True, exist_ok=True)
    consortium, coordinator = folder / "consortium.yaml", folder / "coordinator"
    named = "".join(f"  {site}: {{}}\n" for site in sites)
    address = f"{{host: {host}, port: {port}, admin_port: {admin_port}}}"
    consortium.write_text(f"name: consortium\ncoordinator: {address}\nsites:\n{named}")
    for invitation in provision(consortium, coordinator):
        site = folder / "sites" / invitation.stem
        asked, path, _ = init_site(invitation, site)
        _, answer = admit(coordinator, examine(coordinator, path), asked.fingerprint)
        join_site(site, answer)


def _identity(consortium: ConsortiumSpec) -> tuple[str, Endpoint]:
    return consortium.name, _endpoint(consortium)


def _endpoint(consortium: ConsortiumSpec) -> Endpoint:
    at = consortium.coordinator
    return Endpoint(at.host, at.port, at.admin_port)


def _authority(coordinator: Path, endpoint: Endpoint) -> str:
    folder = authority(coordinator)
    if not (folder / "ca.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        create_authority(folder, endpoint)
    return root_fingerprint(folder)


def _kit(coordinator: Path, name: str, kind: Kind, kit: Path) -> None:
    """The coordinator's own certificates come about as a site's do."""
    if (kit / "startup").exists():
        return
    request = coordinator / f".request-{kind.value}"
    shutil.rmtree(request, ignore_errors=True)
    asked = request_certificate(request, name, kind)
    signed = request / f"{name}.answer"
    root = root_fingerprint(authority(coordinator))
    approve_request(authority(coordinator), asked, signed)
    with built_kit(signed, request, root, name) as built:
        install_kit(built, kit, kind)
    shutil.rmtree(request)
