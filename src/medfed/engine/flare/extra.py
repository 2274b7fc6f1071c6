"""Whether FLARE is installed."""

from __future__ import annotations

from importlib.util import find_spec

from medfed.core.errors import MissingExtra


def require_flare() -> None:
    """Raise MissingExtra where the extra ``flare`` is not installed."""
    if find_spec("nvflare") is None:
        raise MissingExtra(
            "hospitals on machines of their own need the extra 'flare' (nvflare is not installed)",
            remedy="pip install 'medfed[flare]'",
        )
