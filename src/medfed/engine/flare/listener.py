"""The component of a site's FLARE client that notes when the server takes its signs of life.

FLARE has an event after each of them, but also where no answer came.
"""

from __future__ import annotations

from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.message import Message
from nvflare.private.defs import CellChannel, CellChannelTopic

from medfed.engine.flare.health import Sign


class Listener(FLComponent):  # type: ignore[misc]
    """Named by the client's resources.json; noted: the file that is touched at each answer."""

    def __init__(self, noted: str) -> None:
        super().__init__()
        self._answered = Sign(Path(noted))

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Begin to listen as the client starts, which by then has its cell."""
        if event_type == EventType.SYSTEM_BOOTSTRAP:
            cell = fl_ctx.get_prop(FLContextKey.SITE_OBJ).cell.core_cell
            cell.add_incoming_reply_filter(CellChannel.SERVER_MAIN, CellChannelTopic.HEART_BEAT, self.heard)

    def heard(self, reply: Message) -> None:
        """Note a reply of the server's, unless it is a refusal."""
        if reply.get_header(MessageHeaderKey.RETURN_CODE) == ReturnCode.OK:
            self._answered.give()
