from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from medfed.models import allocator

SHARE_KEPT = """
import sys
from pathlib import Path
import torch
from medfed.models.allocator import keep_freed_memory

def resident_kilobytes():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])

if sys.argv[1] == "kept":
    assert keep_freed_memory() and keep_freed_memory()
torch.ones(10)
before = resident_kilobytes()
activations = [torch.ones(30 * 2**18) for _ in range(4)]
del activations
print((resident_kilobytes() - before) / (4 * 30 * 2**10))
"""


def share_kept(mode: str) -> float:
    done = subprocess.run([sys.executable, "-c", SHARE_KEPT, mode], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="the C library is not glibc")
def test_freed_memory_stays_with_the_process():
    """Four blocks of 30 MiB, as a convolution's activations; by default, their memory goes back to the system."""
    assert share_kept("by default") < 0.3
    assert share_kept("kept") > 0.9


@pytest.mark.parametrize("library", [object(), OSError(), TypeError()], ids=["another libc", "none", "windows"])
def test_without_glibc_nothing_happens(library, monkeypatch):
    def load(name: None) -> object:
        if isinstance(library, Exception):
            raise library
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert allocator.keep_freed_memory.__wrapped__() is False
