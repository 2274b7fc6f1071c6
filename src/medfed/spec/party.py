"""``party_config.json``: who this party is, and whom it works with."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from medfed.spec.document import Document, Keys, read_yaml
from medfed.spec.loading import validated
from medfed.spec.task import Section

Role = Literal["guest", "host", "arbiter"]
PartyId = Annotated[int, Field(ge=1)]

_ADDRESS = re.compile(r"(\[[^\[\]]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?):([0-9]{1,5})")


def _address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if match is None or not 1 <= int(match[2]) <= 65535 or not _is_host(match[1]):
        raise PydanticCustomError(
            "explained",
            "is not a host and a port",
            {"remedy": "write host:port, the port at most 65535: host.example:9000 or [::1]:9000"},
        )
    return text


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return True
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return True


class Party(Section):
    """This party: its role and its number."""

    role: Role
    party_id: PartyId


class RemoteParty(Section):
    """Another party, and where it listens: ``host:port``, an IPv6 host in brackets."""

    role: Role
    party_id: PartyId
    address: Annotated[str, AfterValidator(_address)]

    @property
    def host(self) -> str:
        """The address's host, without brackets."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The address's port."""
        return int(self.address.rpartition(":")[2])


class PartyConfig(Section):
    """This party and its peers; ``remote`` may be given as one party or as several."""

    local: Party
    remote: Annotated[
        tuple[RemoteParty, ...],
        BeforeValidator(lambda v: (v,) if isinstance(v, dict | RemoteParty) else v),
        Field(min_length=1),
    ]

    @field_validator("remote")
    @classmethod
    def _distinct(cls, remote: tuple[RemoteParty, ...], info: ValidationInfo) -> tuple[RemoteParty, ...]:
        local = [info.data["local"].party_id] if "local" in info.data else []
        numbers = local + [party.party_id for party in remote]
        if len(set(numbers)) < len(numbers):
            raise PydanticCustomError(
                "explained",
                "has a party_id that another party has too",
                {"remedy": "give each party its own party_id"},
            )
        return remote


def load_party_config(path: str | os.PathLike[str]) -> PartyConfig:
    """The parties in a JSON file. Raises TaskError, with file and line, which lists every fault found."""
    return validated(PartyConfig, _with_list(read_yaml(path)))


def _with_list(document: Document) -> Document:
    """The document with a single remote party as a list of one, its lines kept."""
    remote = document.data.get("remote")
    if not isinstance(remote, dict):
        return document

    def moved(keys: Keys) -> Keys:
        return ("remote", 0, *keys[1:]) if keys[:1] == ("remote",) and len(keys) > 1 else keys

    places = {moved(keys): place for keys, place in document.places.items()}
    return replace(document, data={**document.data, "remote": [remote]}, places=places)
