"""The peer of large rounds: a round's bytes through one TLS 1.3 connection on loopback, between two processes."""

from __future__ import annotations

import datetime
import multiprocessing
import socket
import ssl
import tempfile
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

PIECE = 1 << 20
"""Bytes of one ``sendall`` and of one ``recv_into``."""

HOST = "localhost"


def round_seconds(size: int, sites: int, rounds: int) -> list[float]:
    """Seconds of each round: for each site in turn, ``size`` bytes there and as many back; a first is not counted."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server((HOST, 0)) as listener:
        chain = _certificate(Path(folder))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(chain)
        port = listener.getsockname()[1]
        far = multiprocessing.get_context("spawn").Process(target=_answer, args=(port, chain, size), daemon=True)
        far.start()
        try:
            accepted, _ = listener.accept()
            with context.wrap_socket(accepted, server_side=True) as connection:
                return [_round(connection, size, sites) for _ in range(rounds + 1)][1:]
        finally:
            far.join(10)
            far.kill()


def _round(connection: ssl.SSLSocket, size: int, sites: int) -> float:
    model, buffer = memoryview(bytes(size)), memoryview(bytearray(PIECE))
    begun = time.perf_counter()
    for _ in range(sites):
        _send(connection, model)
        _receive(connection, buffer, size)
    return time.perf_counter() - begun


def _answer(port: int, certificate: Path, size: int) -> None:
    """The far end: after every ``size`` bytes that came, as many back, until the connection ends."""
    model, buffer = memoryview(bytes(size)), memoryview(bytearray(PIECE))
    context = ssl.create_default_context(cafile=str(certificate))
    with (
        socket.create_connection((HOST, port)) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as connection,
    ):
        while _receive(connection, buffer, size):
            _send(connection, model)


def _send(connection: ssl.SSLSocket, model: memoryview) -> None:
    for start in range(0, len(model), PIECE):
        connection.sendall(model[start : start + PIECE])


def _receive(connection: ssl.SSLSocket, buffer: memoryview, size: int) -> bool:
    """Whether so many bytes came before the connection's end."""
    left = size
    while left:
        came = connection.recv_into(buffer, min(left, PIECE))
        if not came:
            return False
        left -= came
    return True


def _certificate(folder: Path) -> Path:
    """A key and its own certificate for loopback, in one file."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "chain.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return path
