"""The C library's allocator, told to keep memory that is freed.

By default glibc returns large freed blocks to the system at once, which hands them out again page by page, zeroed.
A convolution's activations are freed and asked for at every update, so that this costs it a tenth of its time or more.
"""

from __future__ import annotations

import functools

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""The parameters of ``mallopt(3)``, from glibc's ``malloc.h``."""

_SETTINGS = {
    M_MMAP_THRESHOLD: 32 * 2**20,  # larger blocks alone are mapped by themselves; glibc allows no more
    M_TRIM_THRESHOLD: 2**31 - 1,  # this much may lie free at the heap's end
    M_TOP_PAD: 64 * 2**20,  # the heap grows by this much beyond what is asked for
}


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process, and those it forks, keep the memory it frees; whether the C library (glibc) can.

    For processes that train convolutions only: it trades memory for time. Calls after the first do nothing.
    """
    import ctypes

    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # no C library under the process's own name: Windows
        return False
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    taken = [library.mallopt(parameter, value) for parameter, value in _SETTINGS.items()]
    return all(taken)
