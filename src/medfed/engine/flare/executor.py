"""The client's half of a job: bytes in, the site's answer out, in the process that FLARE starts for the job.

It takes no arguments, since a coordinator writes those: what it works with is in the site's own folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from medfed.core.codec import parts
from medfed.core.errors import CodecError
from medfed.engine.deployed.site import DeployedSite, open_site
from medfed.engine.flare.cargo import carried, loaded, unloaded
from medfed.engine.flare.guard import end_with_parent_process, limit_resources
from medfed.engine.flare.job import SITE_VARIABLE, TASK

_SERVER = "server"
"""The first part of the names of the server's processes among FLARE's cells."""


class SiteExecutor(Executor):  # type: ignore[misc]
    """Hands every task to the site (see the module)."""

    def __init__(self) -> None:
        super().__init__()
        self._site: DeployedSite | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Open the site when the job begins, and give its files back when it ends."""
        if event_type == EventType.START_RUN:
            end_with_parent_process()
            self._opened()
        elif event_type == EventType.END_RUN and self._site is not None:
            self._site.close()
            self._site = None

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """The site's answer."""
        if task_name != TASK:
            return make_reply(ReturnCode.BAD_TASK_DATA)
        try:
            site, cell = self._opened(), fl_ctx.get_engine().get_cell()
            spool = site.folder.path / "spool"
            try:
                answer = site.respond(unloaded(carried(shareable), _SERVER, cell, spool / "received", site.largest))
            except CodecError as error:
                answer = site.decline(error)
            return loaded(parts(answer), cell, spool / "answer")
        except BaseException:  # an exception's text would travel to the server
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)

    def _opened(self) -> DeployedSite:
        if self._site is None:
            self._site = open_site(Path(os.environ[SITE_VARIABLE]))
            limit_resources(self._site.settings.current().policy)
        return self._site
