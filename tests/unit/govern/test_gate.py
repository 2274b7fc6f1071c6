from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfed.core import codec
from medfed.core.codec import encode
from medfed.core.errors import DataError, RefusalReason, Refused
from medfed.core.messages import Message, Moments, Vector, adds
from medfed.core.protocols import SiteContext
from medfed.core.steps import Release, step
from medfed.core.wire import Request
from medfed.govern.gate import Facts, admit, check_release, describe_payload
from medfed.spec.policy import Limits, Policy, QuietHours

DIGEST = "ab" * 32


@dataclass(frozen=True, eq=False)
class Ask(Message, wire="test.gate.ask"):
    text: str


@dataclass(frozen=True, eq=False)
class Total(Message, wire="test.gate.total"):
    gradient: Moments = adds(bound=8.0)
    rows: int = adds(bound=100)


@dataclass(frozen=True, eq=False)
class Nested(Message, wire="test.gate.nested"):
    weights: Vector
    inner: Total
    levels: tuple[str, ...]
    name: str
    note: str | None


@step(releases=Release.SUM)
def form_total(site: SiteContext, message: Ask) -> Total:
    return Total(np.zeros(3), 1)


@step(releases=Release.SITE)
def own_reply(site: SiteContext, message: Ask) -> Nested:
    raise AssertionError


ONE_THING = Policy(
    tasks=(DIGEST,),
    task_types=("classification",),
    algorithms=("fedavg",),
    steps=("test_gate.form_total",),
    releases=("sum",),
    minimum_patients=20,
    limits=Limits(rounds=5, requests=9, request_bytes=1000, released_bytes=4000),
)
REQUEST = Request(
    run="run",
    task=DIGEST,
    site="north",
    round=5,
    call=1,
    base=4,
    settled=4,
    step="test_gate.form_total",
    message=Ask("please"),
)
FACTS = Facts(
    task_digest=DIGEST,
    task_type="classification",
    algorithm="fedavg",
    algorithm_steps=frozenset({"test_gate.form_total"}),
    patients=20,
    request_bytes=1000,
    requests_so_far=8,
    released_bytes_so_far=3999,
    now=datetime(2027, 1, 1, tzinfo=UTC),
)
LIMITS = ONE_THING.limits
ALWAYS = QuietHours.model_validate({"from": "00:00", "to": "24:00"})


def altered(**fields: Any) -> Policy:
    return ONE_THING.model_copy(update=fields)


def limited(**fields: Any) -> Policy:
    return altered(limits=LIMITS.model_copy(update=fields))


BY_POLICY = [
    (altered(tasks=("cd" * 32,)), RefusalReason.TASKS),
    (altered(task_types=("regression",)), RefusalReason.TASK_TYPES),
    (altered(algorithms=("scaffold",)), RefusalReason.ALGORITHMS),
    (altered(steps=("test_gate.own_reply",)), RefusalReason.STEPS),
    (altered(releases=("site", "levels")), RefusalReason.RELEASES),
    (altered(quiet_hours=(ALWAYS,)), RefusalReason.QUIET_HOURS),
    (altered(minimum_patients=21), RefusalReason.MINIMUM_PATIENTS),
    (limited(rounds=4), RefusalReason.ROUNDS),
    (limited(requests=8), RefusalReason.REQUESTS),
    (limited(request_bytes=999), RefusalReason.REQUEST_BYTES),
    (limited(released_bytes=3999), RefusalReason.RELEASED_BYTES),
]
BY_FACT = [
    (FACTS._replace(task_digest="cd" * 32), RefusalReason.TASKS),
    (FACTS._replace(task_type="survival"), RefusalReason.TASK_TYPES),
    (FACTS._replace(algorithm="fed"), RefusalReason.ALGORITHMS),
    (FACTS._replace(algorithm_steps=frozenset({"other.step"})), RefusalReason.STEPS),
    (FACTS._replace(patients=19), RefusalReason.MINIMUM_PATIENTS),
    (FACTS._replace(request_bytes=1001), RefusalReason.REQUEST_BYTES),
    (FACTS._replace(requests_so_far=9), RefusalReason.REQUESTS),
    (FACTS._replace(released_bytes_so_far=4000), RefusalReason.RELEASED_BYTES),
]


def test_the_one_thing_is_admitted() -> None:
    admit(ONE_THING, REQUEST, form_total, FACTS)


def test_every_key_of_the_policy_is_in_the_table() -> None:
    elsewhere = {"limits", "minimum_count", "cpus", "memory", "epsilon", "delta", "explanations"}
    keys = {f"policy.{name}" for name in Policy.model_fields.keys() - elsewhere}
    keys |= {f"policy.limits.{name}" for name in Limits.model_fields}
    assert {reason.value for _, reason in BY_POLICY} == keys


@pytest.mark.parametrize(("policy", "reason"), BY_POLICY)
def test_one_altered_key_refuses_by_its_name(policy: Policy, reason: RefusalReason) -> None:
    with pytest.raises(Refused) as caught:
        admit(policy, REQUEST, form_total, FACTS)
    assert caught.value.reason is reason
    assert reason.value.removeprefix("policy.") in caught.value.cause
    assert caught.value.remedy


@pytest.mark.parametrize(("facts", "reason"), BY_FACT)
def test_one_altered_fact_is_refused(facts: Facts, reason: RefusalReason) -> None:
    with pytest.raises(Refused) as caught:
        admit(ONE_THING, REQUEST, form_total, facts)
    assert caught.value.reason is reason


def test_another_step_is_refused_though_it_is_installed() -> None:
    with pytest.raises(Refused) as caught:
        admit(ONE_THING, REQUEST, own_reply, FACTS)
    assert caught.value.reason is RefusalReason.STEPS


def test_a_request_for_another_task_is_refused_even_where_every_task_is_allowed() -> None:
    with pytest.raises(Refused) as caught:
        admit(Policy.permissive(), replace(REQUEST, task="cd" * 32), form_total, FACTS)
    assert caught.value.reason is RefusalReason.TASKS


def test_the_number_of_patients_is_never_quoted() -> None:
    with pytest.raises(Refused) as caught:
        admit(ONE_THING, REQUEST, form_total, FACTS._replace(patients=17))
    assert "17" not in str(caught.value)


@given(st.builds(FACTS._replace, patients=st.integers(0, 10**6), task_type=st.text()))
def test_the_default_policy_refuses_everything(facts: Facts) -> None:
    for which in (form_total, own_reply):
        with pytest.raises(Refused):
            admit(Policy(), REQUEST, which, facts)


def test_each_permission_alone_is_not_enough() -> None:
    for key in ("tasks", "task_types", "algorithms", "steps", "releases"):
        with pytest.raises(Refused) as caught:
            admit(Policy.permissive().model_copy(update={key: ()}), REQUEST, form_total, FACTS)
        assert caught.value.reason == f"policy.{key}"


def test_a_star_within_a_list_is_a_name_like_any_other() -> None:
    with pytest.raises(Refused):
        admit(altered(algorithms=("*",)), REQUEST, form_total, FACTS)


def test_the_permissive_policy_admits_what_the_algorithm_declares() -> None:
    facts = FACTS._replace(algorithm_steps=frozenset({form_total.name, own_reply.name}), patients=1)
    admit(Policy.permissive(), REQUEST, form_total, facts)
    admit(Policy.permissive(), REQUEST, own_reply, facts)
    with pytest.raises(Refused) as caught:
        admit(Policy.permissive(), REQUEST, own_reply, FACTS)
    assert caught.value.reason is RefusalReason.STEPS


def test_a_split_without_patients_may_be_read_and_one_with_too_few_may_not() -> None:
    policy = Policy.permissive().model_copy(update={"minimum_patients": 5})
    for patients in (0, 5):
        admit(policy, REQUEST, form_total, FACTS._replace(patients=patients))
    with pytest.raises(Refused) as caught:
        admit(policy, REQUEST, form_total, FACTS._replace(patients=4))
    assert caught.value.reason is RefusalReason.MINIMUM_PATIENTS


@pytest.mark.parametrize(
    ("reply", "field"),
    [
        (Total(np.array([0.0, 8.125]), 3), "gradient"),
        (Total(np.array([-8.125]), 3), "gradient"),
        (Total(np.array([np.nan]), 3), "gradient"),
        (Total(np.array([-np.inf]), 3), "gradient"),
        (Total(np.array([8.0]), 101), "rows"),
    ],
)
def test_a_sum_out_of_bounds_does_not_leave(reply: Total, field: str) -> None:
    with pytest.raises(DataError) as caught:
        check_release(Policy.permissive(), form_total, reply, FACTS)
    assert repr(field) in caught.value.cause
    assert not any(value in str(caught.value) for value in ("8.125", "nan", "inf", "101"))


def test_a_sum_at_its_bound_leaves() -> None:
    check_release(Policy.permissive(), form_total, Total(np.array([8.0, -8.0]), 100), FACTS)


def test_released_bytes_are_counted_to_the_byte() -> None:
    reply = Total(np.zeros(4), 7)
    size = len(encode(reply))
    facts = FACTS._replace(released_bytes_so_far=1000)
    check_release(limited(released_bytes=1000 + size), form_total, reply, facts)
    with pytest.raises(Refused) as caught:
        check_release(limited(released_bytes=999 + size), form_total, reply, facts)
    assert caught.value.reason is RefusalReason.RELEASED_BYTES


def test_a_payload_is_described_without_its_values() -> None:
    message = Nested(np.full(14, 3.25, np.float32), Total(np.full((2, 3), 6.5), 17), ("rare",), "secret", None)
    payload = describe_payload(message)
    assert payload.shapes == (
        "weights float32[14]",
        "inner.gradient float64[2,3]",
        "inner.rows int",
        "levels list[1]",
        "name str",
        "note NoneType",
    )
    assert payload.bytes == len(encode(message))
    assert payload.digest == hashlib.sha256(encode(message)).hexdigest()


def test_the_bytes_of_a_reply_are_gone_through_once_for_its_limit_and_its_ledger_entry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes: list[Message] = []
    monkeypatch.setattr(codec, "parts", lambda message, parts=codec.parts: (passes.append(message), parts(message))[1])
    reply = Total(np.zeros(4), 7)
    check_release(limited(released_bytes=10**6), form_total, reply, FACTS)
    describe_payload(reply)
    assert passes == [reply]
