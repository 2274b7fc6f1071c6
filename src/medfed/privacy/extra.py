"""Whether the libraries of differential privacy, and of homomorphic encryption, are installed."""

from __future__ import annotations

from importlib.util import find_spec

from medfed.core.errors import MissingExtra

_MODULES = {"opacus": "opacus", "dp_accounting": "dp-accounting"}


def require_privacy() -> None:
    """Raise MissingExtra where the extra ``privacy`` is not installed."""
    missing = [package for module, package in _MODULES.items() if find_spec(module) is None]
    if missing:
        raise MissingExtra(
            f"differential privacy needs the extra 'privacy' ({', '.join(missing)} is not installed)",
            remedy="pip install 'medfed[privacy]'",
        )


def require_he() -> None:
    """Raise MissingExtra where the extra ``he`` is not installed."""
    if find_spec("tenseal") is None:
        raise MissingExtra(
            "homomorphic encryption needs the extra 'he' (tenseal is not installed)", remedy="pip install 'medfed[he]'"
        )
