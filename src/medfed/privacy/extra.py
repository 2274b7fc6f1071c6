"""Whether the libraries of differential privacy are installed."""

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
