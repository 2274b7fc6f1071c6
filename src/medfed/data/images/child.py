"""The guarded process: it decodes files of unknown origin, and may die of them.

Limits of memory and of time are the system's, so they hold inside decoders written in C too. It ends when its input
does.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import warnings
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.data.images import decoding, reasons
from medfed.data.images.limits import check_shape
from medfed.data.images.wire import Broken, Order, Window, receive_line, send
from medfed.data.raw import Unreadable


def main(memory: int, seconds: float) -> None:
    """Answer orders until there are no more. memory: bytes beyond those in use; seconds: for one order."""
    warnings.simplefilter("ignore")
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)  # decoders write to both, at will
    os.dup2(silent, 2)
    decoding.prepare()
    _limit_memory(memory)
    while True:
        try:
            line = receive_line(sys.stdin.buffer)
        except Broken:
            return
        window = line.pop("window")
        order = Order(**line, window=None if window is None else Window(**window))
        signal.setitimer(signal.ITIMER_REAL, seconds)  # at whose end the system kills this process
        answer, array = _answered(order)
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(output, answer, array)


def _answered(order: Order) -> tuple[dict[str, Any], NDArray[np.float32] | None]:
    try:
        if not order.pixels:
            return {"header": asdict(decoding.header(order.path))}, None
        array = decoding.pixels(order)
        check_shape(array.shape)
        return {"shape": list(array.shape)}, array
    except decoding.NoImage as none:
        return _none(none.reason, ignored=True)
    except Unreadable as unreadable:
        return _none(unreadable.reason)
    except ImportError:
        return _none(reasons.NO_EXTRA)
    except MemoryError:
        return _none(reasons.NO_MEMORY)
    except RecursionError:
        return _none(reasons.NESTED)
    except OSError as error:
        return _none(reasons.not_read(error))
    except Exception as error:  # whatever a decoder may raise on a file of unknown origin; its words may quote values
        return _none(reasons.damaged(error))


def _none(reason: str, *, ignored: bool = False) -> tuple[dict[str, Any], None]:
    return {"reason": reason, "ignored": ignored}, None


def _limit_memory(memory: int) -> None:
    with open("/proc/self/statm") as file:  # noqa: PTH123 - as cheap as it gets
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold a patient's image


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
