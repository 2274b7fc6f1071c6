"""Who is a member of a consortium: its sites as they stand, and their revocation, on the coordinator's record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medfed.core.errors import UserError
from medfed.engine.deployed.folders import CoordinatorFolder
from medfed.engine.flare.admissions import Admission, admissions
from medfed.engine.flare.revocation import Revocation, Revocations
from medfed.govern.entries import OFFICE, PolicyEntry
from medfed.govern.ledger import open_briefly
from medfed.govern.places import COORDINATOR
from medfed.spec.consortium import load_consortium

_SOON = 30
"""Days before a certificate's end at which its site should renew it."""


@dataclass(frozen=True)
class Member:
    """A site that consortium.yaml names; admission, revocation: None where there is none."""

    site: str
    contact: str
    admission: Admission | None
    revocation: Revocation | None

    @property
    def days_left(self) -> int | None:
        """Days until its certificate ends; None where it has none."""
        return None if self.admission is None else self.admission.days_left()

    @property
    def ends_soon(self) -> bool:
        """Whether it should renew its certificate."""
        return self.days_left is not None and self.days_left < _SOON


def members(coordinator: Path) -> Sequence[Member]:
    """Every site of the consortium, by name. Raises UserError where a file is damaged."""
    folder = CoordinatorFolder.open(coordinator)
    admitted = admissions(folder.path)
    revoked = Revocations(folder.revoked).current().sites
    sites = load_consortium(folder.path / "consortium.yaml").sites
    return [
        Member(name, site.contact or "", admitted.get(name), revoked.get(name)) for name, site in sorted(sites.items())
    ]


def revoke_site(coordinator: Path, site: str, reason: str, by: str) -> None:
    """Refuse a site from now on, whether it was admitted or not.

    It holds at once; Refused is raised afterwards where the ledger cannot be written. Raises UserError.
    """
    folder = CoordinatorFolder.open(coordinator)
    known = {member.site: member for member in members(folder.path)}
    if site not in known:
        raise UserError(
            f"{site!r} is no site of this consortium", where=str(folder.path), remedy=f"known: {', '.join(known)}"
        )
    admission = known[site].admission
    Revocations(folder.revoked).revoke(site, admission.certificate if admission else "", reason, by)
    record_members(folder.path)


def restore_site(coordinator: Path, site: str) -> None:
    """Refuse a site no longer. Raises UserError where it was not revoked; Refused as :func:`revoke_site`."""
    folder = CoordinatorFolder.open(coordinator)
    Revocations(folder.revoked).restore(site)
    record_members(folder.path)


def record_members(coordinator: Path) -> None:
    """Put who may take part from now on, and who may not, into the coordinator's ledger."""
    folder = CoordinatorFolder.open(coordinator)
    revoked = Revocations(folder.revoked).current()
    content = {
        "admitted": {name: each.certificate for name, each in admissions(folder.path).items()},
        "revoked": {name: [each.reason, each.by] for name, each in revoked.sites.items()},
        "revoked_certificates": sorted(each.certificate for each in revoked.certificates),
    }
    policy = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    with open_briefly(folder.ledger(OFFICE), folder.key(), COORDINATOR) as ledger:
        ledger.append(PolicyEntry(OFFICE, policy))
