"""What a job's process does for itself before it works: it ends with its parent, and keeps to its limits."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time

from medfed.engine.flare.bound import FLARE_VARIABLE
from medfed.spec.policy import Policy

_EVERY = 0.2


def end_with_parent_process() -> None:
    """End this process within a second of FLARE's, which a killed one cannot see to itself."""
    parent = int(os.environ.get(FLARE_VARIABLE, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_EVERY)
        os._exit(1)

    threading.Thread(target=watch, name="medfed-parent", daemon=True).start()


def limit_resources(policy: Policy) -> None:
    """Keep to the processors and the memory that the site's policy gives a job."""
    if policy.cpus is not None and hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))[: policy.cpus]
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, mine)
    if policy.memory is not None:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = policy.memory if most == resource.RLIM_INFINITY else min(policy.memory, most)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
