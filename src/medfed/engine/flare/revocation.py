"""Who may take part no longer; read anew whenever the file changes, so that a revoked site is refused at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from medfed.core.errors import Refused, UserError
from medfed.core.files import alone, write_atomically
from medfed.engine.flare.writing import writable

_GRAIN = 2_000_000_000
"""Nanoseconds within which two changes may leave the same time at a file."""


@dataclass(frozen=True)
class Revocation:
    """One line of the list: certificate is the SHA-256 of the certificate, empty for a site that has none."""

    site: str
    certificate: str
    time: str
    reason: str
    by: str


@dataclass(frozen=True)
class Revoked:
    """The list: sites that are refused, and certificates that are, whoever shows them."""

    sites: Mapping[str, Revocation]
    certificates: tuple[Revocation, ...]


class Revocations:
    """The list in a file that commands change while a server runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._revoked = Revoked(MappingProxyType({}), ())

    def check(self, site: str) -> None:
        """Raise Refused for a revoked site, and for every site where the list cannot be read."""
        revocation = self._current().sites.get(site)
        if revocation is not None:
            raise Refused(
                f"the site was revoked ({revocation.reason})", where=site, remedy="speak with the coordinator's people"
            )

    def check_certificate(self, fingerprint: str) -> None:
        """Raise Refused for a certificate that was replaced or whose site was revoked."""
        revoked = self._current()
        for each in (*revoked.certificates, *revoked.sites.values()):
            if each.certificate == fingerprint:
                raise Refused(f"the certificate was revoked ({each.reason})", where=each.site)

    def current(self) -> Revoked:
        """The list as it stands. Raises UserError where it is damaged."""
        try:
            return self._current()
        except Refused as error:
            raise UserError(error.cause, where=error.where, remedy=error.remedy) from error

    def revoke(self, site: str, certificate: str, reason: str, by: str) -> None:
        """Refuse a site from now on."""
        with self._changing() as now:
            _write(self._path, {**now.sites, site: _revocation(site, certificate, reason, by)}, now.certificates)

    def restore(self, site: str) -> None:
        """Refuse a site no longer. Raises UserError where it was not revoked."""
        with self._changing() as now:
            if site not in now.sites:
                raise UserError(f"{site!r} is not revoked", where=str(self._path))
            _write(self._path, {name: each for name, each in now.sites.items() if name != site}, now.certificates)

    def replace_certificate(self, site: str, certificate: str, by: str) -> None:
        """Refuse a certificate from now on, but not its site, which has a new one."""
        with self._changing() as now:
            added = _revocation(site, certificate, "replaced by a new certificate", by)
            _write(self._path, now.sites, (*now.certificates, added))

    @contextmanager
    def _changing(self) -> Iterator[Revoked]:
        """The list as it stands, which no other command changes meanwhile. Raises UserError."""
        folder = self._path.parent
        with writable(folder), alone(folder / f".{self._path.name}.lock"):
            yield self.current()

    def _current(self) -> Revoked:
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen or time.time_ns() - status.st_mtime_ns < _GRAIN:
                self._revoked = _parsed(self._path.read_text())
                self._seen = seen
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            self._seen = None
            raise Refused(
                "the list of revoked sites cannot be read, so nobody takes part",
                where=str(self._path),
                remedy="bring back a copy of the file",
            ) from error
        return self._revoked


def create_revocations(path: Path) -> None:
    """Begin with an empty list, unless there is one."""
    if not path.exists():
        _write(path, {}, ())


def _parsed(text: str) -> Revoked:
    content = json.loads(text)
    sites = [Revocation(**each) for each in content["sites"]]
    certificates = [Revocation(**each) for each in content["certificates"]]
    if any(not isinstance(each.site, str) or not isinstance(each.certificate, str) for each in (*sites, *certificates)):
        raise ValueError("names are text")
    return Revoked(MappingProxyType({each.site: each for each in sites}), tuple(certificates))


def _revocation(site: str, certificate: str, reason: str, by: str) -> Revocation:
    return Revocation(site, certificate, datetime.now(UTC).isoformat(timespec="seconds"), reason, by)


def _write(path: Path, sites: Mapping[str, Revocation], certificates: Sequence[Revocation]) -> None:
    content = {
        "sites": [asdict(each) for each in sites.values()],
        "certificates": [asdict(each) for each in certificates],
    }
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n", durable=True, mode=0o600)
