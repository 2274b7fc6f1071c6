"""The parties of a party_config.json as sites, each with a folder of its own."""

from __future__ import annotations

from pathlib import Path

from medfed.core.errors import DataError
from medfed.spec.party import Party, RemoteParty, load_party_config


def party_sites(config: Path, data: Path) -> dict[str, Path]:
    """Site name → folder for every party: ``data/<party_id>``, or else ``data/<role>``.

    A site is called by its role and id, ``guest-9999``. Raises TaskError for a bad file, DataError where a
    party has no folder.
    """
    parties = load_party_config(config)
    everyone: tuple[Party | RemoteParty, ...] = (parties.local, *parties.remote)
    return {f"{party.role}-{party.party_id}": _folder(party, data) for party in everyone}


def _folder(party: Party | RemoteParty, data: Path) -> Path:
    for name in (str(party.party_id), party.role):
        if (data / name).is_dir():
            return data / name
    raise DataError(
        f"there is no folder for the party {party.party_id} ({party.role})",
        where=str(data),
        remedy=f"put its data into {data / str(party.party_id)}, or {data / party.role}",
    )
