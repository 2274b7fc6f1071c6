"""A consortium's file, from which its coordinator is provisioned: where it listens, and which hospitals take part."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from medfed.spec.attestation import Attestation
from medfed.spec.document import read_yaml
from medfed.spec.loading import validated
from medfed.spec.site import Contact
from medfed.spec.task import Name, Section

RESERVED = frozenset({"admin", "coordinator", "federated", "localhost", "pooled", "server"})
"""Names that stand for something else in certificates, ledgers and metrics, in small letters."""

_PARTY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def _party_name(name: str) -> str:
    if not _PARTY_NAME.fullmatch(name):
        raise PydanticCustomError(
            "explained",
            "cannot be a hospital's name",
            {"remedy": "write at most 63 of A-Z, a-z, 0-9, `_` and `-`, the first of them a letter or digit"},
        )
    if name.lower() in RESERVED:
        raise PydanticCustomError(
            "explained",
            "has a name that stands for something else",
            {"remedy": f"choose another than {', '.join(sorted(RESERVED))}"},
        )
    return name


PartyName = Annotated[str, AfterValidator(_party_name)]
"""A hospital's name in a deployed consortium, which is also a file's name and a certificate's."""


def _host(text: str) -> str:
    if not (_is_ipv4(text) if re.fullmatch(r"[0-9.]*", text) else _is_host_name(text)):
        raise PydanticCustomError(
            "explained",
            "is not a host",
            {"remedy": "write a host name or an IPv4 address alone, without scheme or port: fl.example.org"},
        )
    return text


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_host_name(text: str) -> bool:
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))


Host = Annotated[str, AfterValidator(_host), Field(description="a host name or an IPv4 address")]
Port = Annotated[int, Field(ge=1, le=65535)]


class Coordinator(Section):
    """Where the coordinator listens: ``port`` for the sites, ``admin_port`` for its own administrators."""

    host: Host
    port: Port = 8002
    admin_port: Port = 8003

    @model_validator(mode="after")
    def _two_ports(self) -> Coordinator:
        if self.port == self.admin_port:
            raise PydanticCustomError(
                "explained",
                f"has the same number, {self.port}, as port and as admin_port",
                {"remedy": "give each a number of its own"},
            )
        return self


class Member(Section):
    """A hospital of the consortium. contact: whom to ask there for the fingerprint of its keys."""

    contact: Contact | None = None


def _member(value: Any) -> Any:
    if value is not None and not isinstance(value, dict | Member):
        raise PydanticCustomError(
            "explained", "is not a section", {"remedy": "write `contact: …` below the hospital's name, or nothing"}
        )
    return {} if value is None else value


def _some_sites(value: Any) -> Any:
    if not value or not isinstance(value, dict):
        raise PydanticCustomError(
            "explained",
            "names no hospital",
            {"remedy": "write, for example: `sites: {north: {contact: it@north.example}}`"},
        )
    return value


class ConsortiumSpec(Section):
    """A consortium: its name, its coordinator, and its hospitals by name."""

    name: Name
    coordinator: Coordinator
    attestation: Attestation = Attestation()
    sites: Annotated[
        dict[PartyName, Annotated[Member, BeforeValidator(_member)]],
        BeforeValidator(_some_sites),
    ] = Field(default={}, validate_default=True)

    @field_validator("sites")
    @classmethod
    def _distinct(cls, sites: dict[str, Member], info: ValidationInfo) -> dict[str, Member]:
        hosts = [info.data["coordinator"].host] if "coordinator" in info.data else []
        known: dict[str, str] = {}
        for name in [*hosts, *sites]:
            other = known.setdefault(name.lower(), name)
            if other is not name:
                raise PydanticCustomError(
                    "explained",
                    f"calls two parties alike, but for capital letters: {other}, {name}",
                    {"remedy": "give each hospital a name that no other and no coordinator's host has"},
                )
        return sites


def load_consortium(path: str | os.PathLike[str]) -> ConsortiumSpec:
    """The consortium in a YAML file. Raises TaskError, with file and line, which lists every fault found."""
    return validated(ConsortiumSpec, read_yaml(path))
