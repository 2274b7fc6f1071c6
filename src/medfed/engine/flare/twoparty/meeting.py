"""The first contact: the host fetches an invitation from the guest, sends its request, and gets its certificate.

It runs over TLS with a certificate made for the purpose, which proves nothing. Who the other party is, both people tell
by comparing one fingerprint over both parties' keys, each as its own side saw them: :func:`.pair.fingerprint`. The keys
themselves, the invitation, the request and the answer are those of any consortium.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from medfed.core.codec import decode, encode
from medfed.core.errors import CodecError, MedFedError, UserError
from medfed.core.messages import Message

M = TypeVar("M", bound=Message)

Confirm = Callable[[str], bool]
"""Asks this side's person whether the other one sees the same fingerprint."""

_LARGEST = 1 << 18
PROMPTLY = 20.0
"""Seconds for what needs no person."""
PATIENTLY = 3600.0
"""Seconds for the other side's person to compare the fingerprint."""


@dataclass(frozen=True)
class Hello(Message, wire="twoparty.hello"):
    """The host is there. name: the host name or address by which it reached the guest."""

    guest: str
    host: str
    name: str


@dataclass(frozen=True, eq=False)
class Invited(Message, wire="twoparty.invited"):
    """The guest's invitation, a file's content."""

    invitation: bytes


@dataclass(frozen=True, eq=False)
class Asked(Message, wire="twoparty.asked"):
    """The host's request for a certificate, a file's content."""

    request: bytes


@dataclass(frozen=True, eq=False)
class Admitted(Message, wire="twoparty.admitted"):
    """The guest's answer, a file's content."""

    answer: bytes


@dataclass(frozen=True)
class Joined(Message, wire="twoparty.joined"):
    """The host has what it needs. request: the fingerprint of its request, which nobody else knows."""

    request: str


@dataclass(frozen=True)
class Farewell(Message, wire="twoparty.farewell"):
    """The guest knows that; from now on it listens as a consortium's coordinator."""


@dataclass(frozen=True)
class Declined(Message, wire="twoparty.declined"):
    """The other side ends the contact, and says why."""

    sentence: str


class NoContact(MedFedError):
    """Nobody listens, or whoever does speaks otherwise."""


class EndedThere(UserError):
    """The other side ended the contact."""


class Line:
    """One TLS connection that carries messages, each behind its length."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection

    def send(self, message: Message) -> None:
        """Raises NoContact."""
        content = encode(message)
        with _heard():
            self._connection.sendall(struct.pack(">I", len(content)) + content)

    def receive(self, *kinds: type[M], seconds: float = PROMPTLY) -> M:
        """Raises NoContact where nothing of these kinds comes in time, EndedThere where the other side declines."""
        with _heard():
            self._connection.settimeout(seconds)
            (length,) = struct.unpack(">I", self._read(4))
            if length > _LARGEST:
                raise CodecError("it is too long")
            message = decode(self._read(length), Message)
        if isinstance(message, Declined):
            raise EndedThere(f"the other party ended the contact: {message.sentence[:500]}")
        if not isinstance(message, kinds):
            raise NoContact(f"it sent a {type(message).__name__}")
        return message

    def _read(self, length: int) -> bytes:
        found = b""
        while len(found) < length:
            piece = self._connection.recv(length - len(found))
            if not piece:
                raise ConnectionError("it hung up")
            found += piece
        return found


@contextmanager
def _heard() -> Iterator[None]:
    try:
        yield
    except (OSError, CodecError, struct.error) as error:
        cause = error.cause if isinstance(error, CodecError) else str(error)
        raise NoContact(f"the other side does not speak as a party does ({cause})") from error


def dial(address: tuple[str, int]) -> Line:
    """A line to the guest. Raises NoContact."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the fingerprint tells who it is
    with _heard():
        connection = socket.create_connection(address, timeout=PROMPTLY)
        try:
            return Line(context.wrap_socket(connection))
        except BaseException:
            connection.close()
            raise


@contextmanager
def listening(port: int) -> Iterator[Callable[[], Line | None]]:
    """A function that waits a second for the next line and gives it, or None; the port is free afterwards."""
    context = _server_context()
    try:
        server = socket.create_server(("", port))
    except OSError as error:
        raise UserError(
            f"cannot listen on port {port} ({error.strerror})",
            remedy="end what else uses it, or write another port into both party_config.json",
        ) from error
    with server, contextlib.ExitStack() as lines:
        server.settimeout(1.0)

        def accept() -> Line | None:
            try:
                connection, _ = server.accept()
            except TimeoutError:
                return None
            lines.pop_all().close()  # one line at a time
            connection.settimeout(PROMPTLY)
            try:
                wrapped = context.wrap_socket(connection, server_side=True)
            except OSError:
                connection.close()
                return None
            lines.callback(wrapped.close)
            return Line(wrapped)

        yield accept


def _server_context() -> ssl.SSLContext:
    """TLS 1.3 under a key and a certificate that exist for this process alone."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "medfed")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .sign(key, SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "certificate.pem"
        file.touch(mode=0o600)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
        context.load_cert_chain(file)
    return context
