"""The server's half of a job: the run loop, in the process that FLARE starts for it.

Its only argument is the run's id. Everything else it has from the coordinator's folder, which the service that started
the server named in its environment.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from medfed.core.errors import MedFedError, QuorumLost
from medfed.engine.deployed.conduct import Conductor, Pause
from medfed.engine.deployed.folders import CoordinatorFolder
from medfed.engine.deployed.submission import Submission
from medfed.engine.flare.carrier import FlareCarrier
from medfed.engine.flare.guard import collect_often, end_with_parent_process
from medfed.engine.flare.hardening import outlive_garbage
from medfed.engine.flare.job import COORDINATOR_VARIABLE
from medfed.engine.flare.presence import Presence
from medfed.engine.flare.revocation import Revocations
from medfed.engine.flare.tlskeys import coordinator_tls


class RunController(Controller):  # type: ignore[misc]
    """Conducts one run (see the module)."""

    def __init__(self, run: str) -> None:
        super().__init__()
        end_with_parent_process()
        self._run = run

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Not to be ended by what a site sends."""
        outlive_garbage()

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to clear away."""

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """FLARE's tasks are not used: there are none to answer."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """The whole run; how it ends is told in the run's folder."""
        import torch  # noqa: F401 - which every run needs

        collect_often()
        folder = CoordinatorFolder.open(Path(os.environ[COORDINATOR_VARIABLE]))
        submission = Submission(folder.runs / self._run)
        carrier = FlareCarrier(fl_ctx, abort_signal, submission.folder / "spool")
        restart = submission.folder / "restart"
        restart.unlink(missing_ok=True)
        submission.tell("job", sites=sorted(carrier.sites))
        allowed = Revocations(folder.revoked).check

        def told(gone: frozenset[str]) -> None:
            carrier.gone = gone
            submission.tell("gone", sites=sorted(gone))

        presence = Presence(carrier.sites, self.communicator, told)
        try:
            with presence.watched():
                Conductor(folder, submission, carrier, allowed, restart.exists, coordinator_tls(folder)).conduct()
        except Pause:
            submission.tell("paused")
        except MedFedError as error:
            if abort_signal.triggered:
                submission.tell("aborted")
            elif isinstance(error, QuorumLost) and _lacks(submission, carrier.sites - presence.gone):
                submission.tell("paused")
            else:
                self._fail(submission, error)
        except Exception:
            (submission.folder / "fault.log").write_text(traceback.format_exc())
            self._fail(submission, MedFedError("a fault of MedFed's own; fault.log in the run's folder has its trace"))
        else:
            submission.tell("finished")
            submission.settle()

    @staticmethod
    def _fail(submission: Submission, error: MedFedError) -> None:
        told: dict[str, Any] = {"code": error.code, "status": error.exit_status}
        submission.tell("failed", cause=error.cause, remedy=error.remedy, where=error.where, **told)
        submission.settle()


def _lacks(submission: Submission, present: frozenset[str]) -> bool:
    """Whether a run that has begun lost its quorum because sites are away: it waits for them, and does not fail."""
    return not present.issuperset(submission.members() or ())
