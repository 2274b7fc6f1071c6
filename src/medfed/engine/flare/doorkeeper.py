"""The FLARE server's component that turns away revoked sites, replaced certificates, and what would hurt all others.

FLARE knows no revocation: whoever shows a certificate that the root signed may register. This asks the coordinator's
list for the certificate when a client registers and whenever anything comes by its connection, which is closed where it
was revoked; and for the client's name at every message.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any
from weakref import WeakSet

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.fuel.f3.cellnet.defs import IdentityChallengeKey, ReturnCode
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.fuel.f3.connection import Connection
from nvflare.fuel.f3.message import Message
from nvflare.private.defs import CellMessageHeaderKeys

from medfed.core.errors import Refused
from medfed.engine.flare.guard import collect_often
from medfed.engine.flare.hardening import greet_each_by_itself, refuse_large_frames
from medfed.engine.flare.revocation import Revocations
from medfed.engine.flare.tlskeys import note_connection


class Doorkeeper(FLComponent):  # type: ignore[misc]
    """Named by the server's resources.json; revoked: the path of the list; noted: where the keys of connections go.

    FLARE makes it before the server listens, so that nobody is greeted in FLARE's own way.
    """

    def __init__(self, revoked: str, noted: str) -> None:
        super().__init__()
        refuse_large_frames()
        greet_each_by_itself()
        self._revocations = Revocations(Path(revoked))
        self._noted = Path(noted)
        self._seen: WeakSet[Connection] = WeakSet()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Take up its place as the server starts; the server does not start where that fails."""
        if event_type == EventType.SYSTEM_START:
            collect_often()
        if event_type != EventType.SYSTEM_BOOTSTRAP:
            return
        try:
            server = fl_ctx.get_prop(FLContextKey.SITE_OBJ)
            server.cell.core_cell.add_incoming_filter(channel="*", topic="*", cb=self._message)
            connections = server.cell.core_cell.communicator.conn_manager
            process = connections.process_frame
            connections.process_frame = lambda line, frame: (
                process(line, frame) if self._holds(line.conn) else line.conn.close()
            )
            clients = server.client_manager
            authenticate = clients.authenticate
            clients.authenticate = lambda request, context: (
                authenticate(request, context) if self._admitted(request, context) else None
            )
        except Exception as error:  # FLARE goes on after any other exception of a component
            raise UnsafeComponentError("the list of revoked sites cannot be kept") from error

    def _holds(self, connection: Connection) -> bool:
        """Whether the certificate of whoever is connected may still be used; who is within this machine needs none.

        Where it cannot be told, no: FLARE would drop the frame alone, and keep a connection that carries nothing.
        """
        shown = getattr(getattr(connection, "sock", None), "getpeercert", None)
        if shown is None:
            return True
        try:
            certificate = shown(binary_form=True) or b""
        except (OSError, ValueError):  # it was closed meanwhile
            return False
        try:
            self._revocations.check_certificate(sha256(certificate).hexdigest())
            if connection not in self._seen:
                note_connection(self._noted, certificate)
                self._seen.add(connection)
        except Refused as refused:
            self.logger.warning(f"turned away: {refused.where}: {refused.cause}")
            return False
        except Exception as error:
            self.logger.warning(f"turned away: {type(error).__name__}: {error}")
            return False
        return True

    def _message(self, message: Message) -> Message | None:
        """An answer in place of the server's to a revoked site's message; nothing for all others."""
        name = message.get_header(CellMessageHeaderKeys.CLIENT_NAME)
        try:
            if name:
                self._revocations.check(name)
        except Refused as refused:
            return make_reply(ReturnCode.UNAUTHENTICATED, refused.cause)
        return None

    def _admitted(self, request: Any, context: FLContext) -> bool:
        """Whether a client may register; FLARE checks afterwards that the certificate is its own."""
        try:
            self._revocations.check(request.get_header(CellMessageHeaderKeys.CLIENT_NAME))
            certificate = x509.load_pem_x509_certificates(request.payload[IdentityChallengeKey.CERT])[0]
            self._revocations.check_certificate(certificate.fingerprint(SHA256()).hex())
        except Refused as refused:
            self.logger.warning(f"turned away: {refused.where}: {refused.cause}")
            context.set_prop(FLContextKey.UNAUTHENTICATED, refused.cause, sticky=False)
            return False
        except (LookupError, TypeError, ValueError):
            self.logger.warning("turned away: no certificate")
            return False
        return True
