"""Become a command that the kernel ends with the process that started it: ``python bound.py PARENT COMMAND…``.

It is run as a file, by a bare interpreter, so that it imports nothing else.
"""

import ctypes
import os
import signal
import sys

FLARE_VARIABLE = "MEDFED_FLARE_PROCESS"
"""The environment variable that names FLARE's process to the processes that it starts for jobs."""

_PR_SET_PDEATHSIG = 1


def become(parent: int, command: list[str]) -> None:
    """Replace this process by a command that cannot outlive ``parent``, whatever ends that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    os.environ[FLARE_VARIABLE] = str(os.getpid())
    os.execv(command[0], command)  # noqa: S606 - our own command


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
