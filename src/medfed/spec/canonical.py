"""A task's one canonical form: the digest that sites approve, and the fully resolved task as YAML."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

from medfed.spec.task import TaskSpec


def task_digest(spec: TaskSpec) -> str:
    """SHA-256, in hexadecimal, of the resolved task as JSON: keys sorted, floats in shortest exact form.

    Without ``engine.workers``, which says how a machine is used and changes no bit of what is computed.
    """
    content = resolved(spec)
    del content["engine"]["workers"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def dump_task(spec: TaskSpec) -> str:
    """The resolved task as YAML text; loading it gives an equal task with the same digest."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    yaml.width = 2**20
    stream = io.StringIO()
    yaml.dump(resolved(spec), stream)
    return stream.getvalue()


class _Representer(SafeRepresenter):
    """Writes text that is not printable in double quotes, where every character can be escaped."""


def _text(representer: SafeRepresenter, text: str) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Representer.add_representer(str, _text)


def resolved(value: Any) -> Any:
    """A model as plain dicts, lists and scalars, in its fields' order; fields that are None are left out."""
    match value:
        case BaseModel():
            fields = {name: getattr(value, name) for name in type(value).model_fields}
            extra = value.__pydantic_extra__ or {}
            return {k: resolved(v) for k, v in fields.items() if v is not None} | resolved(extra)
        case Mapping():
            return {key: resolved(item) for key, item in value.items()}
        case list() | tuple():
            return [resolved(item) for item in value]
        case _:
            return value
