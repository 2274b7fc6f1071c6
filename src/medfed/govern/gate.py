"""A site's decision: what may run here, and whether its reply may leave. It denies by default.

Pure functions over facts that the site establishes itself. A refusal names the policy's key and the remedy,
never a count of patients nor any value.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from medfed.core.codec import fingerprint
from medfed.core.disclosure import releasable
from medfed.core.errors import DataError, RefusalReason, Refused
from medfed.core.messages import Message, field_names, out_of_bounds
from medfed.core.steps import Release, Step
from medfed.core.wire import Request
from medfed.spec.policy import Policy


class Facts(NamedTuple):
    """What the site knows of a request and of the run so far.

    task_digest, task_type, algorithm: of the task that the site holds. algorithm_steps: names of the steps
    that this algorithm declares, and of those common to all. patients: distinct patients of the split that
    the step reads. request_bytes: the size of this request. requests_so_far, released_bytes_so_far: of this
    run, before this request. now: the site's clock, aware of its zone.
    """

    task_digest: str
    task_type: str
    algorithm: str
    algorithm_steps: frozenset[str]
    patients: int
    request_bytes: int
    requests_so_far: int
    released_bytes_so_far: int
    now: datetime


class Payload(NamedTuple):
    """A reply as the ledger records it: its fields' shapes; size and SHA-256 (hex) of its encoding."""

    shapes: tuple[str, ...]
    bytes: int
    digest: str


def admit(policy: Policy, request: Request, step: Step[Any, Any], facts: Facts) -> None:
    """Let a request run, or raise Refused with the first key of the policy that says no."""
    _check_task(policy, request, facts)
    _check_step(policy, step, facts)
    _check_quiet_hours(policy, facts)
    if not releasable(facts.patients, policy.minimum_patients):
        raise Refused(
            f"the step {step.name!r} reads fewer patients than minimum_patients ({policy.minimum_patients})",
            reason=RefusalReason.MINIMUM_PATIENTS,
            remedy="run without this site, or agree with it on a lower minimum_patients in its policy",
        )
    _check_limits(policy, request, facts)


def admit_protocol(policy: Policy, request: Request, facts: Facts) -> None:
    """Let a question of a secure sum be answered, which reads no patient's rows, or raise Refused."""
    _check_task(policy, request, facts)
    _check_quiet_hours(policy, facts)
    _check_allowed(policy.releases, Release.SUM.value, "releases", RefusalReason.RELEASES)
    _check_limits(policy, request, facts)


def check_release(
    policy: Policy, step: Step[Any, Any], reply: Message, facts: Facts, sent: Message | None = None
) -> None:
    """Let a step's reply leave, or raise DataError for a summed field out of bounds, Refused for too many bytes.

    sent: the form in which it leaves, where it is not sent as it is.
    """
    if step.releases is Release.SUM and (name := out_of_bounds(reply)) is not None:
        raise DataError(
            f"the field {name!r} that {step.name!r} would release is not finite or exceeds its declared bound",
            remedy="lower the learning rate, standardise the columns, or look for extreme values in the data",
        )
    limit = policy.limits.released_bytes
    if limit is not None and facts.released_bytes_so_far + fingerprint(sent or reply).bytes > limit:
        raise _over_limit("released_bytes", limit, RefusalReason.RELEASED_BYTES)


def describe_payload(message: Message) -> Payload:
    """What a message consists of, without any of its values: ``weights float32[14]``, ``rows int``."""
    known = fingerprint(message)
    return Payload(_shapes(message), known.bytes, known.sha256)


def _check_task(policy: Policy, request: Request, facts: Facts) -> None:
    if request.task != facts.task_digest:
        raise Refused(
            "the request names another task than the one that this site holds",
            reason=RefusalReason.TASKS,
            remedy="submit the task to the site anew",
        )
    _check_allowed(policy.tasks, facts.task_digest, "tasks", RefusalReason.TASKS)
    _check_allowed(policy.task_types, facts.task_type, "task_types", RefusalReason.TASK_TYPES)
    _check_allowed(policy.algorithms, facts.algorithm, "algorithms", RefusalReason.ALGORITHMS)


def _check_step(policy: Policy, step: Step[Any, Any], facts: Facts) -> None:
    _check_allowed(policy.steps, step.name, "steps", RefusalReason.STEPS)
    if step.name not in facts.algorithm_steps:
        raise Refused(
            f"the step {step.name!r} is not among those that {facts.algorithm!r} declares",
            reason=RefusalReason.STEPS,
            remedy="declare it in the algorithm's STEPS",
        )
    _check_allowed(policy.releases, step.releases.value, "releases", RefusalReason.RELEASES)


def _check_quiet_hours(policy: Policy, facts: Facts) -> None:
    for hours in policy.quiet_hours:
        if hours.hold_at(facts.now):
            raise Refused(
                f"the site's policy lets nothing run {hours} (quiet_hours)",
                reason=RefusalReason.QUIET_HOURS,
                remedy="go on with the run when they are over, or ask the site to change quiet_hours in its policy",
            )


def _check_limits(policy: Policy, request: Request, facts: Facts) -> None:
    limits = policy.limits
    if limits.rounds is not None and request.round > limits.rounds:
        raise _over_limit("rounds", limits.rounds, RefusalReason.ROUNDS)
    if limits.requests is not None and facts.requests_so_far >= limits.requests:
        raise _over_limit("requests", limits.requests, RefusalReason.REQUESTS)
    if limits.request_bytes is not None and facts.request_bytes > limits.request_bytes:
        raise _over_limit("request_bytes", limits.request_bytes, RefusalReason.REQUEST_BYTES)
    if limits.released_bytes is not None and facts.released_bytes_so_far >= limits.released_bytes:
        raise _over_limit("released_bytes", limits.released_bytes, RefusalReason.RELEASED_BYTES)


def _check_allowed(allowed: tuple[str, ...] | str, name: str, key: str, reason: RefusalReason) -> None:
    if allowed != "*" and name not in allowed:
        raise Refused(
            f"the site's policy does not allow {name!r} ({key})",
            reason=reason,
            remedy=f"ask the site to add it to {key} in its policy file",
        )


def _over_limit(key: str, limit: int, reason: RefusalReason) -> Refused:
    return Refused(
        f"the site's policy ends a run at limits.{key} ({limit})",
        reason=reason,
        remedy=f"ask the site to raise limits.{key} in its policy file, or ask less of it",
    )


def _shapes(message: Message) -> tuple[str, ...]:
    """The shape of each field; worked out once for messages that are alike but for their values."""
    shapes = tuple([_shape(getattr(message, name)) for name in field_names(type(message))])
    return _described(type(message), shapes)  # type: ignore[arg-type]


_FEW = 4
"""Messages in a list that are described one by one."""


def _shape(value: Any) -> Any:
    """What a field's description is formed of."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape
    if isinstance(value, tuple):
        few = 0 < len(value) <= _FEW and all(isinstance(each, Message) for each in value)
        return tuple(f"{n}.{shape}" for n, each in enumerate(value) for shape in _shapes(each)) if few else len(value)
    return _shapes(value) if isinstance(value, Message) else type(value)


@lru_cache(maxsize=512)
def _described(kind: type[Message], shapes: tuple[Any, ...]) -> tuple[str, ...]:
    found: list[str] = []
    for name, shape in zip(field_names(kind), shapes, strict=True):
        match shape:
            case int():
                found.append(f"{name} list[{shape}]")
            case type():
                found.append(f"{name} {shape.__name__}")
            case np.dtype() as dtype, (*sizes,):
                found.append(f"{name} {dtype.name}[{','.join(map(str, sizes))}]")
            case _:
                found += [f"{name}.{inner}" for inner in shape]
    return tuple(found)
