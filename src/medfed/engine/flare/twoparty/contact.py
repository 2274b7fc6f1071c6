"""Both sides of the first contact: what is made, shown and compared, in order."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from medfed.core.errors import TaskError, UserError
from medfed.core.messages import Message
from medfed.engine.flare.admissions import admissions, admit, examine
from medfed.engine.flare.invitation import Invitation, read_invitation
from medfed.engine.flare.joining import init_site, join_site, read_identity, renew_site
from medfed.engine.flare.membership import record_members
from medfed.engine.flare.provisioning import provision
from medfed.engine.flare.request import AdmissionRequest, read_request
from medfed.engine.flare.twoparty.meeting import (
    PATIENTLY,
    Admitted,
    Asked,
    Confirm,
    Declined,
    EndedThere,
    Farewell,
    Hello,
    Invited,
    Joined,
    Line,
    NoContact,
    dial,
    listening,
)
from medfed.engine.flare.twoparty.pair import Pair, fingerprint
from medfed.engine.flare.writing import private_folder
from medfed.spec.consortium import load_consortium

_SURE = 3
"""Contacts in a row that come to nothing with somebody who listens, after which it is no longer a guest that waits."""

Tell = Callable[[str], None]
"""Shows this side's person a sentence."""


# ----------------------------------------------------------------------------------------------------------- the guest


def meet_host(pair: Pair, confirm: Confirm, tell: Tell) -> None:
    """Wait for the host and admit it. Raises UserError where it cannot be, or this side's person says no."""
    private_folder(pair.home)
    port = pair.address[1]
    with listening(port) as accept:
        tell(f"waiting for {pair.host} on port {port}, for the first contact")
        while not pair.met:
            line = accept()
            if line is not None:
                try:
                    _receive_host(pair, line, confirm)
                except (NoContact, EndedThere) as error:
                    tell(f"a contact came to nothing: {error.cause}")
    tell(f"{pair.host} is admitted")


def _receive_host(pair: Pair, line: Line, confirm: Confirm) -> None:
    hello = line.receive(Hello)
    if (hello.guest, hello.host) != (pair.guest, pair.host):
        line.send(Declined(f"this is {pair.guest}, which waits for {pair.host}"))
        raise NoContact(f"it is {hello.host!r}, looking for {hello.guest!r}")
    invitation = _invitation(pair, hello.name)
    line.send(Invited(invitation.read_bytes()))
    answer: Message = line.receive(Asked, Joined)
    if isinstance(answer, Asked):
        line.send(Admitted(_admitted(pair, line, read_invitation(invitation), answer.request, confirm)))
        answer = line.receive(Joined)
    admission = admissions(pair.coordinator).get(pair.host)
    if not isinstance(answer, Joined) or admission is None or admission.request != answer.request:
        raise NoContact("it says that it was admitted, and it was not")
    pair.remember()
    line.send(Farewell())


def _invitation(pair: Pair, name: str) -> Path:
    """The host's invitation, from a consortium that is made at the first contact: only the host knows the address."""
    kept = pair.coordinator / "consortium.yaml"
    at = load_consortium(kept).coordinator if kept.exists() else None
    if at is None or (at.host, at.port) != (name, pair.address[1]):
        if at is not None and pair.host in admissions(pair.coordinator):
            raise NoContact(f"it came by {name}:{pair.address[1]}, and the certificate is for {at.host}:{at.port}")
        shutil.rmtree(pair.coordinator, ignore_errors=True)
        shutil.rmtree(pair.site, ignore_errors=True)
        try:
            _provision(pair, name)
        except TaskError as error:
            raise NoContact(error.cause) from error
    return pair.coordinator / "invitations" / f"{pair.host}.json"


def _provision(pair: Pair, name: str) -> None:
    port = pair.address[1]
    address = {"host": name, "port": port, "admin_port": port + 1 if port < 65535 else port - 1}
    about = {"name": "two parties", "coordinator": address, "sites": {pair.guest: {}, pair.host: {}}}
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "consortium.yaml"
        file.write_text(json.dumps(about))
        for invitation in provision(file, pair.coordinator):
            if invitation.stem == pair.guest:
                asked, request, _ = init_site(invitation, pair.site)
                _, answer = admit(pair.coordinator, examine(pair.coordinator, request), asked.fingerprint)
                join_site(pair.site, answer)


def _admitted(pair: Pair, line: Line, invitation: Invitation, content: bytes, confirm: Confirm) -> bytes:
    """FLARE's answer to the host's request, once this side's person has compared the fingerprint."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"{pair.host}.request.zip"
        path.write_bytes(content)
        try:
            request = examine(pair.coordinator, path)
            if request.site != pair.host:
                raise UserError(f"it asks for the certificate of {request.site!r}")
        except UserError as error:
            line.send(Declined("the request cannot be admitted"))
            raise NoContact(error.cause) from error
    if not confirm(_fingerprint(invitation, request)):
        line.send(Declined("the fingerprint was not accepted there"))
        raise NoContact("the fingerprint was not accepted")
    known = admissions(pair.coordinator)
    _, answer = admit(pair.coordinator, request, request.fingerprint, replace=pair.host in known, by="first contact")
    record_members(pair.coordinator)
    return answer.read_bytes()


# ------------------------------------------------------------------------------------------------------------ the host


def meet_guest(pair: Pair, confirm: Confirm, tell: Tell, every: float) -> None:
    """Reach the guest, however long it takes, and be admitted. every: seconds between two attempts.

    Raises UserError where the guest declines, is another than before, or this side's person says no.
    """
    private_folder(pair.home)
    host, port = pair.address
    told, otherwise = "", 0
    while not pair.met:
        try:
            _be_admitted(pair, dial(pair.address), confirm)
        except NoContact as error:
            otherwise = otherwise + 1 if _joined(pair) and _listens(pair) else 0
            if otherwise == _SURE:
                pair.remember()  # the guest knows, and its goodbye was lost: a coordinator listens there now
                continue
            if told != error.cause:
                told = error.cause
                tell(f"waiting for {pair.guest} at {host}:{port} ({error.cause})")
            time.sleep(every)
    tell(f"{pair.guest} has admitted this party")


def _be_admitted(pair: Pair, line: Line, confirm: Confirm) -> None:
    line.send(Hello(pair.guest, pair.host, pair.address[0]))
    invitation, request = _request(pair, line.receive(Invited).invitation)
    own = read_request(request, invitation.root)
    if not _joined(pair):
        line.send(Asked(request.read_bytes()))
        if not confirm(_fingerprint(invitation, own)):
            line.send(Declined("the fingerprint was not accepted there"))
            raise UserError("the fingerprint was not accepted", remedy="ring the other party, and start both again")
        answer = line.receive(Admitted, seconds=PATIENTLY).answer
        with tempfile.TemporaryDirectory() as place:
            signed = Path(place) / f"{pair.host}.signed.zip"
            signed.write_bytes(answer)
            join_site(pair.site, signed)
    line.send(Joined(own.fingerprint))
    line.receive(Farewell)
    pair.remember()


def _request(pair: Pair, content: bytes) -> tuple[Invitation, Path]:
    """The guest's invitation, and this party's request, made at the first attempt and kept over the others."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "invitation.json"
        path.write_bytes(content)
        invitation = read_invitation(path)
        if (invitation.site, invitation.host, invitation.port) != (pair.host, *pair.address):
            raise UserError("the guest's invitation is for another party or another address", where=pair.guest)
        if not (pair.site / "identity.json").exists():
            return invitation, init_site(path, pair.site)[1]
    known = read_identity(pair.site)
    key = (pair.site / "keys" / "coordinator.pub").read_bytes()
    if known.root != invitation.root or key != invitation.key().pem():
        raise UserError(
            "the guest shows other keys than at the last attempt",
            where=pair.guest,
            remedy=f"if it has made new ones, remove {pair.home} here; else somebody may stand between the parties",
        )
    request = pair.site / f"{pair.host}.request.zip"
    return invitation, request if request.exists() else renew_site(pair.site)[1]


def _joined(pair: Pair) -> bool:
    return (pair.site / "flare" / "startup").is_dir()


def _listens(pair: Pair) -> bool:
    try:
        dial(pair.address)
    except NoContact:
        return False
    return True


def _fingerprint(invitation: Invitation, request: AdmissionRequest) -> str:
    return fingerprint(invitation.root, invitation.coordinator_fingerprint, request.fingerprint)
