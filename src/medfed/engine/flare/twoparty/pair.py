"""The two parties: who they are, where each keeps its things, and the task over them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from medfed.core.errors import TaskError, UserError
from medfed.core.files import write_atomically
from medfed.spec.canonical import resolved
from medfed.spec.loading import TaskFile, task_of
from medfed.spec.party import Party, PartyConfig, RemoteParty
from medfed.spec.task import SiteEntry

DATASET = "default"
"""What both parties call their rows."""


@dataclass(frozen=True)
class Pair:
    """A guest and a host, seen by one of them.

    guest, host: their names as sites, such as ``guest-9999``. here: the name of this one. address: where the guest
    listens, as the host dials it; at the guest only the port counts. home: the folder of this party's keys.
    """

    guest: str
    host: str
    here: str
    address: tuple[str, int]
    home: Path

    @property
    def coordinates(self) -> bool:
        """Whether this party is the guest."""
        return self.here == self.guest

    @property
    def coordinator(self) -> Path:
        """The guest's coordinator folder."""
        return self.home / "coordinator"

    @property
    def site(self) -> Path:
        """This party's site folder."""
        return self.home / "site"

    @property
    def labels(self) -> dict[str, str]:
        """What the parties are called on the screen."""
        return {self.guest: "Guest", self.host: "Host"}

    @property
    def met(self) -> bool:
        """Whether the first contact was made, on this side's knowledge."""
        return (self.home / "met").exists()

    def remember(self) -> None:
        """The first contact was made."""
        write_atomically(self.home / "met", "", durable=True)


def pair_of(config: PartyConfig, where: Path, parties: Path) -> Pair:
    """The pair in a party_config.json. parties: the folder below which each pair's keys are kept.

    Raises TaskError for parties that are not one guest and one host with an address.
    """
    local, others = config.local, config.remote
    if len(others) != 1 or {local.role, others[0].role} != {"guest", "host"}:
        raise TaskError(
            "a run between machines is between one guest and one host",
            where=str(where),
            remedy="give one of them the role guest and the other host; or simulate all of them here: --simulate",
        )
    (remote,) = others
    if ":" in remote.host:
        raise TaskError(
            "the guest is reached by a host's name or an IPv4 address",
            where=str(where),
            remedy="write host.example:9380",
        )
    guest, host = sorted((_name(local), _name(remote)))
    home = parties / f"{_name(local)}-with-{_name(remote)}"
    return Pair(guest, host, _name(local), (remote.host, remote.port), home)


def _name(party: Party | RemoteParty) -> str:
    return f"{party.role}-{party.party_id}"


def own_rows(party: Party, data: Path) -> Path:
    """This party's rows: ``data/<party_id>``, else ``data/<role>``, else what is directly in ``data``."""
    for name in (str(party.party_id), party.role):
        if (data / name).is_dir():
            return data / name
    if not data.exists():
        raise UserError(
            "there is no such folder", where=str(data), remedy="name the folder of this party's rows by --data"
        )
    return data


def pair_task(task: TaskFile, pair: Pair) -> TaskFile:
    """The task over both parties, the same at both. Raises TaskError for one that names sites itself."""
    if task.spec.sites:
        raise task.error("sites", cause="the parties are the sites", remedy="leave sites out of the task")
    entry = SiteEntry(data=DATASET)
    return task_of(resolved(task.spec.model_copy(update={"sites": {pair.guest: entry, pair.host: entry}})))


def fingerprint(root: str, coordinator: str, request: str) -> str:
    """What both people compare at the first contact: 160 bits over the keys of both, in hexadecimal.

    root, coordinator: SHA-256 of the guest's root certificate and of its Ed25519 key, as the invitation has them.
    request: SHA-256 over the host's two keys. Whoever sits between the parties and shows each of them keys of its own
    would have to find two equal ones, at a cost of 2^80. It stays the same until one of them makes new keys.
    """
    parts = b"".join(map(bytes.fromhex, (root, coordinator, request)))
    return hashlib.sha256(b"medfed two parties 1\n" + parts).hexdigest()[:40]


def write_settings(pair: Pair, rows: Path, digest: str) -> None:
    """Write this party's site.yaml anew: its rows, and the one task that it has started by its command."""
    settings = {
        "contact": f"whoever runs {pair.here}",
        "datasets": {DATASET: {"path": str(rows.resolve())}},
        "policy": dict.fromkeys(("task_types", "algorithms", "steps", "releases"), "*"),
        "approvals": {"auto_approve": [digest]},
    }
    about = "# Written anew by each federated_train.py: whoever starts it approves its task.\n"
    write_atomically(pair.site / "site.yaml", about + json.dumps(settings, indent=1) + "\n", mode=0o600)
