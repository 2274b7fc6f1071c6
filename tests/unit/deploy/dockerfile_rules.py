"""What a Dockerfile of ours must hold: hadolint's common rules (by their numbers), and what the images promise.

Hadolint itself is a Haskell program; these are the rules that apply to files of this kind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

USER = "10001:10001"
_SECRET = re.compile(r"(PASSWORD|SECRET|TOKEN|CREDENTIAL|PRIVATE)", re.IGNORECASE)


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name in capitals, and the rest with lines joined."""

    name: str
    rest: str


@dataclass(frozen=True)
class Stage:
    """What is built between one FROM and the next, on an image or an earlier stage."""

    name: str
    base: str
    body: tuple[Instruction, ...]


def stages(text: str) -> dict[str, Stage]:
    """The stages of a Dockerfile by name. Raises ValueError for a FROM without AS."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = [line.strip() for line in kept.replace("\\\n", " ").splitlines() if line.strip()]
    found: dict[str, Stage] = {}
    for line in lines:
        name, _, rest = line.partition(" ")
        if name.upper() == "FROM":
            base, as_, stage = rest.split()
            if as_.upper() != "AS":
                raise ValueError(line)
            found[stage] = Stage(stage, base, ())
        else:
            last = list(found.values())[-1]
            each = Instruction(name.upper(), " ".join(rest.split()))
            found[last.name] = Stage(last.name, last.base, (*last.body, each))
    return found


def whole(stage: Stage, among: dict[str, Stage]) -> list[Instruction]:
    """The instructions that shape a stage's image, those of the stages below it first."""
    below = whole(among[stage.base], among) if stage.base in among else []
    return [*below, *stage.body]


def dockerfile_problems(text: str, targets: tuple[str, ...]) -> list[str]:
    """What is wrong with a Dockerfile that builds these targets."""
    among = stages(text)
    problems = [problem for stage in among.values() for problem in _stage(stage, among)]
    return problems + [f"{target}: {problem}" for target in targets for problem in _target(among[target], among)]


def _stage(stage: Stage, among: dict[str, Stage]) -> Iterator[str]:
    if stage.base not in among and not re.search(r":\d+\.\d+", stage.base):
        yield f"DL3006, DL3007: {stage.base} has no version"
    names = [each.name for each in stage.body]
    if "WORKDIR" not in names and any(
        each.name == "COPY" and not each.rest.split()[-1].startswith("/") for each in stage.body
    ):
        yield "DL3045: COPY to a relative path without WORKDIR"
    if any(pair == ("RUN", "RUN") for pair in pairwise(names)):
        yield "DL3059: RUN after RUN"
    for each in stage.body:
        yield from _instruction(each)


def _instruction(each: Instruction) -> Iterator[str]:
    if each.name in {"ADD", "MAINTAINER"}:
        yield f"DL3020, DL4000: {each.name}"
    if each.name == "WORKDIR" and not each.rest.startswith("/"):
        yield "DL3000: WORKDIR is relative"
    if each.name in {"CMD", "ENTRYPOINT"} and not _is_list(each.rest):
        yield f"DL3025: {each.name} is not a JSON list"
    if each.name in {"ARG", "ENV"} and _SECRET.search(each.rest):
        yield f"{each.name} would keep a secret in the image"
    if each.name != "RUN":
        return
    if re.search(r"\b(sudo|cd)\s", each.rest):
        yield "DL3003, DL3004: cd or sudo"
    if re.search(r"(?<!\|)\|(?!\|)", each.rest):
        yield "DL4006: a pipe without pipefail"
    if "useradd" in each.rest and "--no-log-init" not in each.rest:
        yield "DL3046: useradd without --no-log-init"
    for command in re.findall(r"pip (?:install|wheel)[^&]*", each.rest):
        if "--no-cache-dir" not in command:
            yield "DL3042: pip keeps its cache"
        if not re.search(r"(\.whl|\$1\[\w+\]\"|\s\.)\s*$", command):
            yield "DL3013: pip takes something else than what was built here"


def _target(stage: Stage, among: dict[str, Stage]) -> Iterator[str]:
    body = whole(stage, among)
    last = {each.name: each.rest for each in body}
    if last.get("USER") != USER:
        yield f"DL3002: the user is not {USER}"
    if any(each.name == "RUN" and "pip" in each.rest for each in body):
        yield "the image has a build step in it"
    if last.get("STOPSIGNAL") != "SIGTERM":
        yield "it is not stopped by SIGTERM"
    if sum(each.name == "HEALTHCHECK" for each in body) != 1:
        yield "DL3012: not exactly one HEALTHCHECK"
    elif not _is_list(last["HEALTHCHECK"].partition("CMD ")[2]):
        yield "DL3025: HEALTHCHECK is not a JSON list"
    if not {"ENTRYPOINT", "CMD"} <= set(last):
        yield "it starts nothing"


def _is_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False
