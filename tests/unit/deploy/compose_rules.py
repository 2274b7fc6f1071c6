"""What a compose file of ours must hold: the Compose Specification's schema, and no right that it can do without."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

USER = "10001:10001"
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_NEVER = ("privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "userns_mode", "env_file", "environment")
_LIMITS = ("cpus", "mem_limit", "pids_limit")


def environment(text: str) -> dict[str, str]:
    """The assignments of an .env file."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def compose_problems(text: str, values: Mapping[str, str]) -> list[str]:
    """What is wrong with a compose file whose variables have these values."""
    missing = sorted(set(_VARIABLE.findall(text)) - set(values))
    if missing:
        return [f"{name} is not in the .env example" for name in missing]
    document = YAML(typ="safe").load(_VARIABLE.sub(lambda found: values[found[1]], text))
    schema = Draft202012Validator(get_builtin_schema("vendor.compose-spec"))
    problems = [f"schema: {error.json_path}: {error.message}" for error in schema.iter_errors(document)]
    return problems or [problem for service in document["services"].values() for problem in _service(service)]


def _service(service: Mapping[str, Any]) -> Iterator[str]:
    for key in _NEVER:
        if key in service:
            yield f"{key} is set"
    for key, wanted in {
        "user": USER,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "init": True,
        "restart": "unless-stopped",
        "stop_signal": "SIGTERM",
        "pull_policy": "never",
    }.items():
        if service.get(key) != wanted:
            yield f"{key} is not {wanted}"
    for key in _LIMITS:
        if not service.get(key):
            yield f"{key} sets no limit"
    if service.get("memswap_limit") != service.get("mem_limit"):
        yield "memory may be swapped"
    if service.get("ulimits", {}).get("core") != 0:
        yield "core dumps may be written"
    if service.get("healthcheck", {}).get("test", ["NONE"])[0] != "CMD":
        yield "there is no health check"
    if not re.search(r":\d+\.\d+\.\d+$", service["image"]):
        yield "the image has no version"
    yield from _places(service)


def _places(service: Mapping[str, Any]) -> Iterator[str]:
    for place in service.get("tmpfs", []):
        path, _, options = place.partition(":")
        if path != "/tmp" or not {"noexec", "nosuid", "nodev"} <= set(options.split(",")) or "size=" not in options:
            yield f"tmpfs {place} is too free"
    writable = []
    for volume in service.get("volumes", []):
        if not isinstance(volume, dict) or volume["type"] != "bind" or volume["bind"]["create_host_path"]:
            yield f"volume {volume} is not a bind of a folder that exists"
        elif not volume.get("read_only"):
            writable.append(volume["target"])
    own = f"/{service['command'][0]}"
    if writable != [own]:
        yield f"writable are {writable}, not {own} alone"
