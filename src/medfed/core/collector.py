"""How often Python looks for objects that refer to each other in a circle."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

OBJECTS_BETWEEN_COLLECTIONS = 100_000
"""New objects after which it looks: a site's request makes hundreds, hardly ever a circle, and each look takes time."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look as rarely as that, and as before at the end."""
    before = gc.get_threshold()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
