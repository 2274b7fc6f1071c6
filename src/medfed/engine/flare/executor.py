"""The client's half of a job, in the process that FLARE starts for it: the site's desk, from its beginning to its end.

It takes no arguments, since a coordinator writes those: what it works with is in the site's own folder. Tasks of
FLARE's it does not do: all questions come by the post.
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
from nvflare.fuel.f3.cellnet.fqcn import FQCN

from medfed.engine.deployed.folders import SiteFolder
from medfed.engine.deployed.site import DeployedSite
from medfed.engine.flare.desk import Desk
from medfed.engine.flare.guard import end_with_parent_process, limit_resources
from medfed.engine.flare.hardening import refuse_large_frames
from medfed.engine.flare.job import SITE_VARIABLE
from medfed.engine.flare.tlskeys import site_tls


class SiteExecutor(Executor):  # type: ignore[misc]
    """Opens the desk and closes it (see the module).

    FLARE makes it before its process reaches for the client, which it would do for ever if that has died meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        end_with_parent_process()
        self._desk: Desk | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Open the desk when the job begins, and close it when it ends."""
        if event_type == EventType.START_RUN:
            refuse_large_frames()
            folder = SiteFolder.open(Path(os.environ[SITE_VARIABLE]))
            site = DeployedSite(folder, site_tls(folder))
            limit_resources(site.settings.current().policy)
            coordinator = FQCN.join([FQCN.ROOT_SERVER, fl_ctx.get_job_id()])
            self._desk = Desk(site, fl_ctx.get_engine().get_cell(), coordinator)
        elif event_type == EventType.END_RUN and self._desk is not None:
            self._desk.close()

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Nothing."""
        return make_reply(ReturnCode.TASK_UNSUPPORTED)
