"""Connectors: where a site's rows come from. One file each, with a function of :data:`Connector`'s form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from medfed.core.registry import Registry
from medfed.data.raw import RawTable
from medfed.spec.task import DataSpec

Connector: TypeAlias = Callable[[Path, DataSpec, str], RawTable]
"""``(path, data, where) -> RawTable``; ``where`` names the site in errors. Raises DataError."""

CONNECTORS: Registry[Connector] = Registry("connector", "medfed.data.connectors", "CONNECTOR")
