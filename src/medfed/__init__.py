"""MedFed: federated learning and analysis across hospitals whose patient data never leave them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from medfed.version import __version__

if TYPE_CHECKING:
    from medfed.api import audit, build, check, compare, explain, export, predict, resume, run

__all__ = ["__version__", "audit", "build", "check", "compare", "explain", "export", "predict", "resume", "run"]


def __getattr__(name: str) -> Any:
    """The functions of :mod:`medfed.api`, imported when they are first used."""
    if name in __all__:
        return getattr(importlib.import_module("medfed.api"), name)
    raise AttributeError(f"module 'medfed' has no attribute {name!r}")
