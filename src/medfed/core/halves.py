"""Going through large arrays with two threads: one thread does not use all that memory can give."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

LARGE = 2**22
"""Elements from which on a second thread gains more than its start takes."""


def in_halves(work: Callable[[slice], None], size: int) -> None:
    """Have ``work`` go through ``size`` elements: all at once, or both halves of many at a time. Raises what it raises.

    The second thread lives for this call alone, so that none is missing in a process that is forked later.
    """
    if size < LARGE:
        work(slice(0, size))
        return
    failures: list[BaseException] = []

    def second() -> None:
        try:
            work(slice(size // 2, size))
        except BaseException as failure:
            failures.append(failure)

    thread = Thread(target=second, name="medfed-half")
    thread.start()
    try:
        work(slice(0, size // 2))
    finally:
        thread.join()
    if failures:
        raise failures[0]
