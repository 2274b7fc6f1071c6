"""Where FLARE 2.9 lets whoever is connected, or only reaches the port, hurt all others: what is changed in it.

Each function changes FLARE's own modules in the process that calls it. Tests drive the attacks against real processes.
"""

from __future__ import annotations

import contextlib
import socket
from functools import cache
from typing import Any

from nvflare.fuel.f3.cellnet import cell
from nvflare.fuel.f3.drivers import socket_conn
from nvflare.fuel.f3.drivers.tcp_driver import TcpStreamServer

_LARGEST_FRAME = 16 * 2**20
"""Bytes: several times what a stream sends at once."""

_HANDSHAKE_SECONDS = 10.0


def refuse_large_frames() -> None:
    """Close the connection of a party that announces more than 16 MiB at once: FLARE takes 2 GiB of memory for it."""
    socket_conn.MAX_FRAME_SIZE = _LARGEST_FRAME


@cache
def greet_each_by_itself() -> None:
    """Shake hands in the connection's own thread, for ten seconds at most.

    FLARE does it where it accepts, and lets one that connects and says nothing keep all others out.
    """
    finish = TcpStreamServer.finish_request

    def accepted(server: TcpStreamServer) -> tuple[socket.socket, Any]:
        return socket.socket.accept(server.socket)

    def greeted(server: TcpStreamServer, line: socket.socket, address: Any) -> None:
        if server.ssl_context is None:
            finish(server, line, address)
            return
        line.settimeout(_HANDSHAKE_SECONDS)
        with contextlib.suppress(OSError), server.ssl_context.wrap_socket(line, server_side=True) as secure:
            secure.settimeout(None)
            finish(server, secure, address)

    TcpStreamServer.get_request = accepted
    TcpStreamServer.finish_request = greeted


def outlive_garbage() -> None:
    """Drop what cannot be decoded, where FLARE ends a server's process for the job: MedFed awaits nothing that way."""
    cell._is_server_job_cell = lambda info: False
