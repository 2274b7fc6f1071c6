"""What FLARE's processes do for themselves: they end with their parent, keep to their limits, and free memory soon."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import threading
import time
from functools import cache

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


def collect_often() -> None:
    """Free now, and soon from now on, what FLARE's messages leave behind in circles, parts of models included."""
    _spare_the_collector()
    gc.collect()


@cache
def _spare_the_collector() -> None:
    """Have Python's collector look often, but not at what there is by now, mostly modules: that takes microseconds.

    Once, since what is in use at that moment is never freed if it ends up in a circle.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200, 2, 2)


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
