"""YAML files as plain data that remember on which line each key stands.

The reader builds plain dicts, lists and scalars straight from the parser's events. Keys are always text.
Custom tags, merge keys, nested aliases and files beyond the limits below are refused before they cost memory.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

from medfed.core.errors import TaskError
from medfed.spec.scalars import plain_scalar

Key: TypeAlias = str | int
Keys: TypeAlias = tuple[Key, ...]
Place: TypeAlias = Callable[[int], str]
"""What ``where`` says of a line, counted from 1."""

MAX_BYTES = 2**20
MAX_DEPTH = 32
MAX_VALUES = 100_000


@dataclass(frozen=True)
class Document:
    """A file's content and where each part of it stands.

    path: the file, or ``task`` for a task given as a Python mapping. data: plain dicts, lists and scalars.
    places: ``file:line`` (or the ``--set`` that wrote it) of each key path.
    """

    path: str
    data: dict[str, Any]
    places: Mapping[Keys, str] = field(default_factory=dict)

    def known(self, *keys: Key) -> Keys | None:
        """The key path, or its nearest ancestor that has a place."""
        return next((keys[:n] for n in range(len(keys), -1, -1) if keys[:n] in self.places), None)

    def where(self, *keys: Key) -> str:
        """``file:line`` of a key path, or of its nearest ancestor that the file has."""
        known = self.known(*keys)
        if known is not None:
            return self.places[known]
        return f"{self.path}: {dotted(keys)}" if keys else self.path


def dotted(keys: Keys) -> str:
    """A key path as people write it: ``federation.lr``, ``compare.strategies[0].name``."""
    parts = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys]
    return "".join(parts).removeprefix(".")


def read_yaml(path: str | os.PathLike[str], *, may_be_empty: bool = False) -> Document:
    """The mapping in a YAML 1.2 (or JSON) file. Raises TaskError, with file and line, for anything else.

    may_be_empty: a file without content is an empty mapping.
    """
    name = os.fspath(path)
    text = _decoded(_content(name), name)
    reader = _Reader(lambda line: f"{name}:{line}")
    data = reader.read(text)
    if data is None and may_be_empty:
        data = {}
    if data is None:
        raise TaskError("the file is empty", where=f"{name}:1", remedy="write a section, `key: value`, into it")
    if not isinstance(data, dict):
        raise TaskError(
            "the file holds no sections",
            where=f"{name}:1",
            remedy="write `key: value` lines at the top level",
        )
    return Document(name, data, {(): f"{name}:1"} | reader.places)


def read_value(text: str, where: str) -> Any:
    """The value that a YAML text stands for. Raises TaskError located at ``where``."""
    return _Reader(lambda _: where).read(text)


def _content(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise TaskError("there is no such file", where=name, remedy=_nearby(name)) from None
    except IsADirectoryError:
        raise TaskError("this is a folder, not a file", where=name, remedy="name a file inside it") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TaskError(
            f"the file cannot be read ({reason})", where=name, remedy="mend its name or its permissions"
        ) from None
    if len(content) > MAX_BYTES:
        raise TaskError(
            f"the file is larger than {MAX_BYTES // 2**20} MiB",
            where=f"{name}:1",
            remedy="name the right file: configuration is a few lines, and data stay in their own files",
        )
    return content


def _nearby(name: str) -> str:
    folder = Path(name).parent
    try:
        files = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except OSError:
        return f"the folder {folder} does not exist or cannot be read: check the path"
    close = difflib.get_close_matches(Path(name).name, files, n=1)
    return f"did you mean {folder / close[0]}?" if close else f"check the path; {folder} has no file of this name"


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TaskError("this is not UTF-8 text", where=f"{name}:{line}", remedy="save the file as UTF-8") from None


@dataclass
class _Reader:
    """Builds values from YAML events, noting the place of each key path."""

    place: Place
    places: dict[Keys, str] = field(default_factory=dict)
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    values: int = 0
    open_anchors: int = 0

    def read(self, text: str) -> Any:
        """The text's only document; None where it has none."""
        try:
            events = YAML(typ="safe", pure=True).parse(text)
            return self._document(events)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise self._malformed(error.problem or "", line, text) from None
        except ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise self._error(line, "a character here is not printable", "remove or retype this line") from None
        except (YAMLError, ValueError, OverflowError):
            raise self._malformed("", 1, text) from None

    def _document(self, events: Iterator[Event]) -> Any:
        value = None
        for event in events:
            if isinstance(event, DocumentStartEvent):
                value = self._value(next(events), events, ())
                next(events)
                break
        rest = next(events, None)
        if rest is not None and not isinstance(rest, StreamEndEvent):
            raise self._error(_line(rest), "a second document begins here", "keep one document in a file: remove `---`")
        return value

    def _value(self, event: Event, events: Iterator[Event], keys: Keys) -> Any:
        line = _line(event)
        self.values += 1
        if isinstance(event, AliasEvent):
            return self._aliased(event, line)
        if getattr(event, "tag", None) is not None:
            raise self._error(line, "a YAML tag (`!…`) stands here", "remove the tag: write plain values only")
        if len(keys) > MAX_DEPTH:
            raise self._error(line, f"more than {MAX_DEPTH} levels are nested here", "flatten this section")
        before = self.values
        anchor = getattr(event, "anchor", None)
        self.open_anchors += anchor is not None
        value = self._built(event, events, keys)
        if anchor is not None:
            self.open_anchors -= 1
            self.anchors[anchor] = (value, self.values - before)
        if self.values > MAX_VALUES:
            raise self._error(line, f"the file holds more than {MAX_VALUES} values", "name the right file")
        return value

    def _aliased(self, event: AliasEvent, line: int) -> Any:
        if self.open_anchors or event.anchor not in self.anchors:
            raise self._error(
                line,
                f"the alias `*{event.anchor}` stands inside an anchored value, or names no value above it",
                "write the values out",
            )
        value, size = self.anchors[event.anchor]
        self.values += size
        if self.values > MAX_VALUES:
            raise self._error(line, f"aliases expand to more than {MAX_VALUES} values", "write the values out")
        return value

    def _built(self, event: Event, events: Iterator[Event], keys: Keys) -> Any:
        if isinstance(event, MappingStartEvent):
            return self._mapping(events, keys)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(events, keys)
        assert isinstance(event, ScalarEvent)  # noqa: S101 - the only kind of node that is left
        text = self._text(event)
        return plain_scalar(text) if event.style is None else text

    def _mapping(self, events: Iterator[Event], keys: Keys) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(events), MappingEndEvent):
            line = _line(event)
            key = self._key(event, line)
            if key in mapping:
                raise self._error(
                    line,
                    f"the key `{dotted((*keys, key))}` is given twice ({self.places[*keys, key]} has it too)",
                    "remove one of the two",
                )
            self.places[*keys, key] = self.place(line)
            mapping[key] = self._value(next(events), events, (*keys, key))
        return mapping

    def _key(self, event: Event, line: int) -> str:
        if not isinstance(event, ScalarEvent) or event.tag is not None or event.anchor is not None:
            raise self._error(line, "a key here is not plain text", "write each key as a word before its colon")
        if event.value == "<<" and event.style is None:
            raise self._error(line, "merge keys (`<<`) are not part of YAML 1.2", "write the keys out")
        return self._text(event)

    def _sequence(self, events: Iterator[Event], keys: Keys) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(events), SequenceEndEvent):
            path = (*keys, len(items))
            self.places[path] = self.place(_line(event))
            items.append(self._value(event, events, path))
        return items

    def _text(self, event: ScalarEvent) -> str:
        text: str = event.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise self._error(_line(event), "half a character (`\\ud…`) is escaped here", "write the character itself")
        return text

    def _malformed(self, problem: str, line: int, text: str) -> TaskError:
        lines = text.splitlines()
        if "\t" in (lines[line - 1] if line <= len(lines) else "") and "\\t" in problem:
            return self._error(line, "a tab stands where YAML wants spaces", "indent by spaces")
        if "mapping values are not allowed" in problem:
            return self._error(
                line,
                "a colon stands where no key may begin",
                "align the keys, and quote texts that contain `: `",
            )
        reason = f" ({problem})" if problem else ""
        return self._error(
            line,
            f"the YAML is malformed here{reason}",
            "check the indentation, brackets and quotes near this line",
        )

    def _error(self, line: int, cause: str, remedy: str) -> TaskError:
        return TaskError(cause, where=self.place(line), remedy=remedy)


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1
