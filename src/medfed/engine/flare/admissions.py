"""Which sites the coordinator has admitted, and under which certificates."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from medfed.core.errors import UserError
from medfed.core.files import write_atomically
from medfed.engine.deployed.folders import CoordinatorFolder
from medfed.engine.flare.authority import approve_request, root_fingerprint
from medfed.engine.flare.certificates import heard, read_certificate, spoken
from medfed.engine.flare.request import AdmissionRequest, read_request, regular_file, zip_members
from medfed.engine.flare.revocation import Revocations
from medfed.engine.flare.writing import private_folder, writable
from medfed.spec.consortium import load_consortium


@dataclass(frozen=True)
class Admission:
    """An admitted site.

    request: the fingerprint that was compared. certificate: SHA-256 of its certificate. ends, admitted: ISO times.
    """

    site: str
    request: str
    certificate: str
    serial: str
    ends: str
    admitted: str

    def days_left(self) -> int:
        """Whole days until the certificate ends."""
        return (datetime.fromisoformat(self.ends) - datetime.now(UTC)).days


def admissions(coordinator: Path) -> Mapping[str, Admission]:
    """Every admitted site by name. Raises UserError where the file is damaged."""
    path = _file(coordinator)
    try:
        content = json.loads(path.read_text()) if path.exists() else {}
        return {name: Admission(**each) for name, each in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError("the list of admitted sites is damaged", where=str(path), remedy="bring back a copy") from error


def examine(coordinator: Path, request: Path) -> AdmissionRequest:
    """Read a request and refuse it where it cannot be admitted at all. Raises UserError."""
    folder = CoordinatorFolder.open(coordinator)
    found = read_request(request, root_fingerprint(authority(folder.path)))
    consortium = load_consortium(folder.path / "consortium.yaml")
    if found.site not in consortium.sites:
        raise UserError(
            f"{found.site!r} is no site of this consortium",
            where=str(request),
            remedy="if it should be one, add it to consortium.yaml and provision again",
        )
    return found


def admit(
    coordinator: Path, request: AdmissionRequest, fingerprint: str, *, replace: bool = False, by: str = ""
) -> tuple[Admission, Path]:
    """Sign a site's certificate, once the fingerprint has been compared; the admission, and the answer to send.

    fingerprint: as the site's people read it out. replace: whether the site may have been admitted before, under
    other keys, whose certificate is revoked thereby. Raises UserError, and then nothing was written.
    """
    folder = CoordinatorFolder.open(coordinator)
    if heard(fingerprint) != request.fingerprint:
        raise UserError(
            f"the fingerprint is not the request's, which is {spoken(request.fingerprint)}",
            where=request.site,
            remedy="do not admit it: somebody may have exchanged the request on its way; ask the site for it again",
        )
    known = admissions(folder.path)
    answer = folder.path / "admitted" / f"{request.site}.signed.zip"
    earlier = known.get(request.site)
    if earlier is not None and earlier.request == request.fingerprint and answer.exists():
        return earlier, answer
    if earlier is not None and not replace:
        raise UserError(
            "the site was admitted before, under other keys",
            where=request.site,
            remedy="if it renews its keys, admit it with --replace; else find out who sent this request",
        )
    with writable(folder.path):
        admission = _sign(folder.path, request, answer)
        if earlier is not None:
            Revocations(folder.revoked).replace_certificate(request.site, earlier.certificate, by)
        _record_key(folder.path / "keys" / "sites", request)
        content = {name: asdict(each) for name, each in sorted({**known, request.site: admission}.items())}
        write_atomically(_file(folder.path), json.dumps(content, indent=1) + "\n", durable=True, mode=0o600)
    return admission, answer


def authority(coordinator: Path) -> Path:
    """The folder of the consortium's root key."""
    return coordinator / "authority"


def _file(coordinator: Path) -> Path:
    return coordinator / "admissions.json"


def _sign(coordinator: Path, request: AdmissionRequest, answer: Path) -> Admission:
    private_folder(answer.parent)
    with tempfile.TemporaryDirectory(dir=answer.parent) as place:
        asked, signed = Path(place) / f"{request.site}.request.zip", Path(place) / answer.name
        asked.write_bytes(request.certificate_request)
        approve_request(authority(coordinator), asked, signed)
        certificate = read_certificate(signed_members(signed, request.site)[f"{request.site}.crt"])
        shutil.move(signed, answer)
    admitted = datetime.now(UTC).isoformat(timespec="seconds")
    return Admission(
        request.site,
        request.fingerprint,
        certificate.fingerprint,
        certificate.serial,
        certificate.ends.isoformat(),
        admitted,
    )


def signed_members(signed: Path, site: str) -> dict[str, bytes]:
    """What FLARE's answer to a site's request holds. Raises UserError for any other file."""
    names = {"signed.json", "signed.json.sig", "site.yaml", "rootCA.pem", f"{site}.crt"}
    return zip_members(regular_file(signed), names)


def _record_key(keys: Path, request: AdmissionRequest) -> None:
    """Keep the site's public key; an earlier one stays beside it, for the ledgers that it signed."""
    path, pem = keys / f"{request.site}.pub", request.key.pem()
    if path.exists() and path.read_bytes() != pem:
        earlier = private_folder(keys / "replaced")
        path.rename(earlier / f"{request.site}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.pub")
    write_atomically(path, pem, durable=True, mode=0o644)
