"""What is wrong with a file, in plain words: pydantic's errors as located problems with a remedy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from itertools import islice
from operator import getitem
from typing import Any

from pydantic import BaseModel, ValidationError

from medfed.core.errors import TaskError
from medfed.spec.document import Document, Keys, dotted
from medfed.spec.task import NAME_IN_WORDS

EXAMPLES = {
    "task_type": "task_type: classification",
    "model": "model: {name: logistic}",
    "model.name": "model: {name: logistic}",
    "model.input_size": "input_size: [3, 224, 224]",
    "federation": "federation: {strategy: fedavg, epochs: 50}",
    "federation.strategy": "strategy: fedavg",
    "federation.strategy.name": "strategy: {name: fedprox, mu: 0.1}",
    "federation.class_weights": "class_weights: balanced",
    "data.label.column": "label: {column: diagnosis}",
    "data.label.positive": "positive: [1, 2, 3, 4]",
    "data.label.negative": "negative: [0]",
    "data.label.classes": "classes: [0, 1, 2]",
    "data.columns": "columns: {age: continuous, sex: binary}",
    "sites": "sites: {north: north.csv, south: south.csv}",
    "compare.strategies": "strategies: [local, pooled, fedavg]",
    "compare.overrides": "overrides: {pooled: {optimizer: adam}}",
    "local": 'local: {"role": "guest", "party_id": 9999}',
    "remote": 'remote: {"role": "host", "party_id": 10000, "address": "host.example:9000"}',
    "remote.address": 'address: "host.example:9000"',
}

NOT_YET = {
    "task_type": (
        ("survival", "glm", "cox", "kaplan_meier", "statistics"),
        "classification, regression or segmentation",
    ),
    "engine.name": (("flare", "processes", "nvflare"), "inprocess"),
}
"""Values that a later version runs, and what to write until then."""

MOST_LISTED = 50
"""Problems that one error lists; nobody reads more at once."""


@dataclass(frozen=True)
class Problem:
    """One fault of a file: the key path at which it stands, what is wrong, and what to do."""

    keys: Keys
    cause: str
    remedy: str


def task_error(document: Document, problems: Sequence[Problem]) -> TaskError:
    """One error that lists every problem, each with its place and its remedy."""
    order = {keys: index for index, keys in enumerate(document.places)}
    problems = sorted(problems, key=lambda problem: order.get(document.known(*problem.keys) or (), 0))
    first = problems[0]
    if len(problems) == 1:
        return TaskError(first.cause, where=document.where(*first.keys), remedy=first.remedy)
    lines = [f"  {document.where(*p.keys)}: {p.cause} (remedy: {p.remedy})" for p in problems]
    return TaskError(
        "\n".join([f"{len(problems)} things are wrong", *lines]),
        where=document.where(*first.keys),
        remedy="mend each of the lines above",
    )


def explain(error: ValidationError, model: type[BaseModel], data: Mapping[str, Any]) -> list[Problem]:
    """The error of validating ``data`` as ``model``, as problems: one for each key path, to a limit."""
    schema = _schema(model)
    grouped: dict[tuple[Keys, bool], list[Mapping[str, Any]]] = {}
    for fault in error.errors(include_url=False):
        is_key = fault["loc"][-1:] == ("[key]",)
        keys = fault["loc"][:-1] if is_key else _known(fault["loc"], schema)
        grouped.setdefault((keys, is_key), []).append(fault)
    problems = []
    for (keys, is_key), (first, *others) in islice(grouped.items(), MOST_LISTED):
        value = _value(data, keys, first["input"]) if others else first["input"]
        problems.append(_problem(keys, is_key, {**first, "input": value}, schema))
    return problems


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _value(data: Any, keys: Keys, default: Any) -> Any:
    """What stands at a key path, since each member of a union reports its own part of it."""
    try:
        return reduce(getitem, keys, data)
    except (LookupError, TypeError):
        return default


def unknown_key(keys: Keys, known: Sequence[str]) -> Problem:
    """The problem of a key that its section does not have."""
    *section, key = keys
    home = f"`{dotted(tuple(section))}`" if section else "the top level"
    close = difflib.get_close_matches(str(key), known, n=1)
    remedy = f"its keys are: {', '.join(known)}"
    return Problem(
        keys,
        f"`{_shown(dotted(keys))}` is not a key that {home} has",
        f"did you mean `{close[0]}`? {remedy}" if close else remedy,
    )


def show(value: Any) -> str:
    """A value of the file, short enough for a message."""
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, list | tuple) and len(value) > 4:
        return f"a list of {len(value)} values"
    if value is None:
        return "empty"
    return (
        str(value).lower()
        if isinstance(value, bool)
        else _shown(repr(list(value) if isinstance(value, tuple) else value))
    )


def _shown(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"


def _problem(keys: Keys, is_key: bool, fault: Mapping[str, Any], schema: dict[str, Any]) -> Problem:
    kind, value, name = fault["type"], fault["input"], dotted(keys)
    if kind == "extra_forbidden":
        return unknown_key(keys, sorted(_resolve(_at(keys[:-1], schema), schema)["properties"]))
    if kind == "explained":
        return Problem(keys, f"`{name}` {fault['msg']}", fault["ctx"]["remedy"])
    if is_key:
        return Problem(keys, f"{show(keys[-1])} cannot be a name", f"write {NAME_IN_WORDS}")
    remedy = _remedy(keys, schema)
    if kind == "missing":
        return Problem(keys, f"`{name}` is missing", remedy)
    values, instead = NOT_YET.get(name, ((), ""))
    if (isinstance(value, int) or not isinstance(values, range)) and value in values:
        return Problem(keys, f"`{name}: {value}` is not available in this version", f"write {instead}")
    return Problem(keys, f"`{name}` is {show(value)}, where {_words(_at(keys, schema), schema)} is needed", remedy)


def _remedy(keys: Keys, schema: dict[str, Any]) -> str:
    here = _at(keys, schema)
    names = [key for key in keys if isinstance(key, str)]
    if ".".join(names) in EXAMPLES:
        return f"write, for example: `{EXAMPLES['.'.join(names)]}`"
    example = _example(here, schema)
    if example is not None:
        return f"write, for example: `{keys[-1]}: {example}`"
    if ".".join(names[:-1]) in EXAMPLES:
        return f"write, for example: `{EXAMPLES['.'.join(names[:-1])]}`"
    section = _resolve(here, schema).get("properties")
    return f"its keys are: {', '.join(sorted(section))}" if section else f"write {_words(here, schema)}"


def _example(here: dict[str, Any], schema: dict[str, Any]) -> str | None:
    """A legal value: the default, the first of those listed, or the smallest."""
    default = here.get("default")
    if default is not None and not isinstance(default, dict | list):
        return json.dumps(default).strip('"')
    if "enum" in here:
        return str(here["enum"][0])
    if here.get("type") in {"integer", "number"}:
        return str(here.get("minimum", 1))
    return next((_example(member, schema) for member in here.get("anyOf", ())), None)


def _known(loc: Sequence[str | int], schema: dict[str, Any]) -> Keys:
    """The part of pydantic's location that is a key path of the file: without names of union members."""
    keys: Keys = ()
    for part in loc:
        section = _resolve(_at(keys, schema), schema)
        if _child(section, part, schema) is None and "properties" not in section:
            break
        keys = (*keys, part)
    return keys


def _at(keys: Keys, schema: dict[str, Any]) -> dict[str, Any]:
    here = schema
    for key in keys:
        here = _child(here, key, schema) or {}
    return here


def _child(here: dict[str, Any], key: str | int, schema: dict[str, Any]) -> dict[str, Any] | None:
    here = _resolve(here, schema)
    if isinstance(key, int):
        items = here.get("items")
        return items if isinstance(items, dict) else None
    if key in here.get("properties", {}):
        child: dict[str, Any] = here["properties"][key]
        return child
    extra = here.get("additionalProperties") or next(iter(here.get("patternProperties", {}).values()), None)
    if extra is None:
        return None
    return extra if isinstance(extra, dict) else {}


def _resolve(here: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference, and choose the member of a union that has parts."""
    if "$ref" in here:
        return _resolve(schema["$defs"][here["$ref"].rsplit("/", 1)[-1]], schema)
    members = [_resolve(member, schema) for member in here.get("anyOf", ())]
    return next((m for m in members if m.get("type") in {"object", "array"}), here)


def _words(here: dict[str, Any], schema: dict[str, Any]) -> str:
    """What a key accepts, in words."""
    here = _resolve(here, schema) if "$ref" in here else here
    if "anyOf" in here:
        members = [_words(m, schema) for m in here["anyOf"] if m.get("type") != "null"]
        return ", or ".join(dict.fromkeys(members))
    choices = here.get("enum") or ([here["const"]] if "const" in here else [])
    if choices:
        return ("one of " if len(choices) > 1 else "") + ", ".join(f"`{choice}`" for choice in choices)
    kind = here.get("type", "")
    if kind == "array":
        return f"a list, each item {_words(here.get('items', {}), schema)}"
    if kind == "string":
        return str(here.get("description", "a text"))
    return _KINDS.get(kind, "a value") + _range(here)


_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a section of `key: value`",
}


def _range(here: dict[str, Any]) -> str:
    bounds = [
        f"{words} {here[name]}"
        for name, words in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if name in here
    ]
    return f" ({' and '.join(bounds)})" if bounds else ""
