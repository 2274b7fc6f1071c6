"""A relay between a party and its coordinator, whose connections can be made to carry nothing while they stand."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Relay:
    """Passes on, both ways, what comes to its port to another one, both on loopback."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._frozen = threading.Event()
        self._ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def freeze(self) -> None:
        """Let what is connected now carry nothing any more, and stay; what connects from now on is passed on."""
        self._frozen.set()
        self._frozen = threading.Event()

    def close(self) -> None:
        self._ended.set()
        self._listening.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                threading.Thread(target=self._pass_on, args=(near, self._frozen), daemon=True).start()

    def _pass_on(self, near: socket.socket, frozen: threading.Event) -> None:
        with near, socket.socket() as far, suppress(OSError):
            far.connect(("127.0.0.1", self._to))
            back = threading.Thread(target=self._pump, args=(far, near, frozen), daemon=True)
            back.start()
            self._pump(near, far, frozen)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, frozen: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if frozen.is_set():
                    self._ended.wait()
                    return
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
