"""Registries: algorithms, connectors and models by package scan and by entry points.

A plugin is one file whose name is the name people write in a task. Files that start with ``_`` are helpers.
Nothing is imported until it is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

from medfed.core.errors import MissingExtra, UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Registry(Generic[T]):
    """Plugins of one kind.

    kind: the word for messages; its plural names the entry points' group (``medfed.models``, say), unless ``group``
    does.
    package: the package that is scanned. attribute: the module attribute that is the plugin. A module may state
    ``REQUIRES = ("extra", …)`` and ``IMPORTS = ("module", …)``: the extras that bring the modules.
    """

    kind: str
    package: str
    attribute: str
    group: str = ""

    @cached_property
    def _modules(self) -> frozenset[str]:
        spec = find_spec(self.package)
        paths = spec.submodule_search_locations if spec else None
        return frozenset(m.name for m in pkgutil.iter_modules(paths) if not m.name.startswith("_"))

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group or f"medfed.{self.kind}s")}

    def names(self) -> list[str]:
        """Every known name, sorted, without importing any."""
        return sorted(self._modules | self._entry_points.keys())

    def get(self, name: str) -> T:
        """The plugin. Raises UserError for an unknown name, MissingExtra where a dependency is absent."""
        if name in self._modules:
            module = importlib.import_module(f"{self.package}.{name}")
            return self._checked(name, getattr(module, self.attribute), module)
        if name in self._entry_points:
            plugin = self._entry_points[name].load()
            return self._checked(name, plugin, inspect.getmodule(plugin))
        raise UserError(f"no {self.kind} is called {name!r}", remedy=self.suggestion(name))

    def suggestion(self, name: str) -> str:
        """A remedy for a name that is not known."""
        close = difflib.get_close_matches(name, self.names(), n=1)
        known = f"known: {', '.join(self.names())}"
        return f"did you mean {close[0]!r}? {known}" if close else known

    def _checked(self, name: str, plugin: Any, module: ModuleType | None) -> T:
        """The plugin, if what its module imports is installed."""
        missing = [m for m in getattr(module, "IMPORTS", ()) if find_spec(m) is None]
        if missing:
            extras = ",".join(getattr(module, "REQUIRES", ()) or getattr(plugin, "REQUIRES", ()))
            raise MissingExtra(
                f"the {self.kind} {name!r} needs the extra {extras!r} ({', '.join(missing)} is not installed)",
                remedy=f"pip install 'medfed[{extras}]'",
            )
        return cast(T, plugin)
