"""The consortium's certificates, by FLARE's own certificate-request flow, called in this process.

Each party makes its private key where it will be used; only requests and certificates travel.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from medfed.core.errors import UserError
from medfed.engine.flare.certificates import read_certificate
from medfed.engine.flare.extra import require_flare

PROJECT = ORGANISATION = "medfed"
"""FLARE's name for a consortium, whose own may hold any letters, and the organisation that every certificate names."""

ADMINISTRATOR = "coordinator@medfed.local"
"""The name under which the coordinator submits jobs."""

_EARLIER = timedelta(days=1)
"""By how much a certificate begins before it is made: the clocks of those who check it may be behind the maker's."""


class Kind(StrEnum):
    """FLARE's kinds of participants."""

    SERVER = "server"
    CLIENT = "client"
    ADMIN = "admin"


@dataclass(frozen=True)
class Endpoint:
    """Where a consortium's server listens: to sites at ``host:port``, to the coordinator itself at ``admin_port``."""

    host: str
    port: int
    admin_port: int


def create_authority(folder: Path, endpoint: Endpoint) -> None:
    """Make the consortium's root key and certificate in a folder that only its owner may read."""
    folder.mkdir(mode=0o700)
    profile = folder / "profile.yaml"
    server = {"host": endpoint.host, "fed_learn_port": endpoint.port, "admin_port": endpoint.admin_port}
    content = {"name": PROJECT, "scheme": "tcp", "connection_security": "mtls", "server": server}
    profile.write_text(json.dumps(content, indent=1) + "\n")
    # without an organisation: FLARE 2.9 leaves it out of the issuer's name in the certificates that it signs
    _run("init", folder, profile=str(profile), output_dir=str(folder), org=None, force=False)


def root_fingerprint(authority: Path) -> str:
    """SHA-256 of the root certificate, in hexadecimal. Raises UserError where there is none."""
    try:
        return read_certificate((authority / "rootCA.pem").read_bytes()).fingerprint
    except OSError as error:
        raise UserError(
            f"the consortium's root certificate cannot be read ({error.strerror})", where=str(authority)
        ) from error


def request_certificate(folder: Path, name: str, kind: Kind) -> Path:
    """Make a private key and a request for its certificate in a new folder; the request, a zip, may travel."""
    participant: dict[str, Any] = {"name": name, "type": kind.value, "org": ORGANISATION}
    if kind is Kind.ADMIN:
        participant["role"] = "lead"
    if kind is Kind.SERVER:
        participant["host_names"] = ["localhost", "127.0.0.1"]
    folder.mkdir(mode=0o700)
    definition = folder / "participant.yaml"
    definition.write_text(json.dumps({"name": PROJECT, "participants": [participant]}, indent=1) + "\n")
    _run("request", folder, participant=str(definition), output_dir=str(folder), force=False)
    return folder / f"{name}.request.zip"


def approve_request(authority: Path, request: Path, signed: Path) -> None:
    """Sign the certificate that a request asks for. Raises UserError for a request that FLARE refuses."""
    profile = authority / "profile.yaml"
    _run(
        "approve",
        authority,
        request_zip=str(request),
        ca_dir=str(authority),
        profile=str(profile),
        signed_zip=str(signed),
        force=True,
    )


@contextmanager
def built_kit(signed: Path, request: Path, root: str, name: str) -> Iterator[Path]:
    """FLARE's start-up kit of a signed request, in a folder that is gone afterwards.

    request: the folder of :func:`request_certificate`, which holds the private key. root: the fingerprint that the
    root certificate must have. Raises UserError where the answer belongs to another request, key or consortium.
    """
    with tempfile.TemporaryDirectory(dir=request) as place:
        answer = Path(place) / f"{name}.signed.zip"  # FLARE insists on the name
        shutil.copyfile(signed, answer)
        fingerprint = "SHA256:" + ":".join(root[at : at + 2].upper() for at in range(0, len(root), 2))
        _run(
            "package",
            request,
            input=str(answer),
            workspace=place,
            request_dir=str(request),
            expected_fingerprint=fingerprint,
            force=False,
        )
        yield next((Path(place) / PROJECT).glob(f"prod_*/{name}"))


def _run(command: str, home: Path, **arguments: Any) -> None:
    """One of FLARE's commands. Raises UserError with what it says where it fails."""
    handler = _handler(command)
    from nvflare.tool import cli_output

    said = io.StringIO()
    cli_output.set_output_format("json")
    try:
        with _flare_home(home), _backdated(), redirect_stdout(said), redirect_stderr(io.StringIO()):
            handler(argparse.Namespace(**arguments))
    except SystemExit:
        pass
    finally:
        cli_output.set_output_format("txt")
    answers = [json.loads(line) for line in said.getvalue().splitlines() if line.startswith("{")]
    if not answers or answers[-1].get("status") != "ok":
        cause = answers[-1].get("message", "") if answers else ""
        raise UserError(f"FLARE refuses: {cause or 'it gave no reason'}", where=str(home))


def _handler(command: str) -> Callable[[argparse.Namespace], object]:
    require_flare()
    from nvflare.tool.cert.cert_commands import handle_cert_approve, handle_cert_init, handle_cert_request
    from nvflare.tool.package.package_commands import handle_package

    handlers: dict[str, Callable[[argparse.Namespace], object]] = {
        "init": handle_cert_init,
        "request": handle_cert_request,
        "approve": handle_cert_approve,
        "package": handle_package,
    }
    return handlers[command]


@contextmanager
def _flare_home(folder: Path) -> Iterator[None]:
    """FLARE keeps its own record of requests and approvals in the home folder: here, in the party's."""
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = before


@contextmanager
def _backdated() -> Iterator[None]:
    """FLARE begins a certificate at the moment of its making: here, :data:`_EARLIER`."""
    from nvflare.lighter import utils
    from nvflare.lighter.impl import cert
    from nvflare.tool.cert import cert_commands

    def generate(**fields: Any) -> Any:
        return utils.generate_cert(**fields | {"not_valid_before": datetime.now(UTC) - _EARLIER})

    cert.generate_cert = cert_commands.generate_cert = generate
    try:
        yield
    finally:
        cert.generate_cert = cert_commands.generate_cert = utils.generate_cert
